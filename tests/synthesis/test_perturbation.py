"""Patches of noise: where they fall, what they change, and that a draw can be replayed."""

import dataclasses

import pytest
import torch

from scrd.synthesis.perturbation import (
    SIMPLEX_STD,
    NoiseSettings,
    apply_perturbation,
    patch_pixels,
    random_integers,
    sample_perturbation,
)

KINDS = ["simplex", "gaussian"]


def draw(count=16, size=(96, 128), seed=0, **settings):
    chosen = NoiseSettings(**settings)
    return sample_perturbation(count, size, chosen, torch.Generator().manual_seed(seed)), chosen


def images(count=16, size=(96, 128)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(9))


def test_sides_and_places_cover_their_whole_range_and_no_more():
    drawn, _ = draw(60_000, (96, 112))
    assert drawn.height.unique().tolist() == list(range(10, 13))
    assert drawn.width.unique().tolist() == list(range(10, 15))
    for side in range(10, 15):
        lefts = drawn.left[drawn.width == side]
        assert lefts.unique().tolist() == list(range(112 - side + 1))
    assert int((drawn.top + drawn.height).max()) == 96
    assert int(drawn.top.min()) == 0
    counts = drawn.width.bincount(minlength=15)[10:].float() / 60_000
    assert (counts - 0.2).abs().max() < 0.01
    corner = (drawn.height == 10) & (drawn.width == 14)
    assert corner.float().mean() == pytest.approx(1 / 15, abs=0.01)  # sides are independent


def test_small_images_take_patches_of_one_size():
    drawn, _ = draw(50, (64, 7))
    assert drawn.height.unique().tolist() == [10]
    assert drawn.width.unique().tolist() == [7]
    assert drawn.left.unique().tolist() == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_footprint_changes_and_all_of_it(kind):
    x = images()
    drawn, settings = draw(kind=kind)
    original = x.clone()
    perturbed, footprint = apply_perturbation(x, drawn, settings)
    assert torch.equal(x, original)
    assert footprint.shape == (16, 1, 96, 128) and footprint.dtype == torch.bool
    for b in range(16):
        expected = torch.zeros(96, 128, dtype=torch.bool)
        top, left = int(drawn.top[b]), int(drawn.left[b])
        expected[top : top + int(drawn.height[b]), left : left + int(drawn.width[b])] = True
        assert torch.equal(footprint[b, 0], expected)
        changed = (perturbed[b] != x[b]).float().mean(0)
        assert torch.all(changed[~expected] == 0)
        assert changed[expected].mean() > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_same_generator_state_same_result_and_fresh_noise_otherwise(kind):
    x = torch.zeros(4, 3, 96, 128)
    first, settings = draw(4, kind=kind)
    again, _ = draw(4, kind=kind)
    replayed = apply_perturbation(x, first, settings)
    for a, b in zip(replayed, apply_perturbation(x, again, settings), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(replayed[0], apply_perturbation(x, first, settings)[0])

    generator = torch.Generator().manual_seed(0)
    batches = [sample_perturbation(4, (96, 128), settings, generator) for _ in range(2)]
    noise = torch.cat([batch.noise for batch in batches])
    assert len(noise.flatten(1).unique(dim=0)) == 8


def test_images_of_a_batch_get_different_noise_at_the_same_place():
    drawn, settings = draw(6)
    same = torch.zeros(6, dtype=torch.int64)
    drawn = dataclasses.replace(drawn, top=same, left=same, height=same + 12, width=same + 12)
    perturbed, _ = apply_perturbation(torch.zeros(6, 3, 96, 128), drawn, settings)
    patches = perturbed[:, :, :12, :12].flatten(1)
    assert torch.pdist(patches).min() > 0.1 * patches.norm(dim=1).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_strength_scales_linearly_and_nothing_is_clipped(kind):
    x = torch.ones(8, 3, 96, 128)
    drawn, weak = draw(8, kind=kind)
    strong = dataclasses.replace(weak, strength=0.6)
    small = apply_perturbation(x, drawn, weak)[0] - 1
    large = apply_perturbation(x, drawn, strong)[0] - 1
    torch.testing.assert_close(large, 3 * small, atol=1e-6, rtol=0)
    assert large.max() > 0 > large.min()


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_have_the_stated_standard_deviation(kind):
    drawn, settings = draw(400, (256, 256), kind=kind, strength=1.0)
    noise, footprint = apply_perturbation(torch.zeros(400, 3, 256, 256), drawn, settings)
    inside = noise.movedim(1, -1)[footprint[:, 0]]
    assert inside.square().mean().sqrt() == pytest.approx(SIMPLEX_STD, rel=0.04)
    assert (inside.abs() > 1e-9).float().mean() > 0.99


def test_half_precision_images_stay_half_precision():
    drawn, settings = draw(2)
    perturbed, _ = apply_perturbation(images(2).bfloat16(), drawn, settings)
    assert perturbed.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(16, 1, 96, 128), (16, 3, 128, 96), (4, 3, 96, 128)])
def test_images_other_than_drawn_for_are_refused(shape):
    drawn, settings = draw()
    with pytest.raises(ValueError, match="drawn for images of shape"):
        apply_perturbation(torch.zeros(shape), drawn, settings)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "perlin"),
        ("strength", 0.0),
        ("strength", float("nan")),
        ("octaves", 0),
        ("persistence", 1.5),
        ("min_side", 0),
        ("max_side_fraction", 0.0),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=str(value)):
        NoiseSettings(**{field: value})


def test_random_integers_are_uniform_over_their_own_ranges():
    low = torch.tensor([0, 5, -3]).repeat(20_000)
    high = torch.tensor([3, 5, -1]).repeat(20_000)
    values = random_integers(low, high, torch.Generator().manual_seed(0)).reshape(-1, 3)
    assert values[:, 0].bincount().div(20_000).sub(0.25).abs().max() < 0.015
    assert values[:, 1].unique().tolist() == [5]
    assert values[:, 2].unique().tolist() == [-3, -2, -1]


def test_patch_pixels_lists_each_pixel_once():
    pixels = torch.stack(patch_pixels(torch.tensor([2, 1]), torch.tensor([2, 3])), 1)
    assert pixels.tolist() == [
        [0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 0, 2],
    ]  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_devices_agree(kind):
    drawn, settings = draw(kind=kind)
    on_cpu = apply_perturbation(images(), drawn, settings)
    on_gpu = apply_perturbation(images().cuda(), drawn, settings)
    torch.testing.assert_close(on_gpu[0].cpu(), on_cpu[0], atol=1e-6, rtol=0)
    assert torch.equal(on_gpu[1].cpu(), on_cpu[1])
