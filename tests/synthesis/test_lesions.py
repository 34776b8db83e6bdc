"""Synthetic lesions lie on tissue, have the sizes they are drawn with, change what they mark."""

import dataclasses
import math

import pytest
import torch

from scrd.synthesis.lesions import (
    KINDS,
    SIZES,
    TISSUE,
    VISIBLE,
    apply_lesions,
    sample_lesions,
)

SIDE = 128


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=24, channels=1):
    """Smooth tissue in the middle, black around it."""
    coarse = 0.3 + 0.4 * torch.rand(count, channels, 12, 12, generator=seeded(3))
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    smooth[..., :16], smooth[..., -16:] = 0, 0
    return smooth


def of_kind(lesions, name):
    return dataclasses.replace(lesions, kind=torch.full_like(lesions.kind, KINDS.index(name)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_seed_replays_and_the_images_stay(channels):
    x = images(channels=channels)
    before = x.clone()
    first, where = apply_lesions(x, sample_lesions(len(x), seeded()))
    again, _ = apply_lesions(x, sample_lesions(len(x), seeded()))
    assert torch.equal(first, again) and torch.equal(x, before)
    assert first.shape == x.shape and first.dtype == x.dtype
    assert where.shape == (len(x), 1, SIDE, SIDE)
    assert where.min() >= 0 and where.max() <= 1
    assert first.min() >= 0 and first.max() <= 1
    other, _ = apply_lesions(x, sample_lesions(len(x), seeded(1)))
    assert not torch.equal(first, other)


def test_what_is_marked_changed_and_what_changed_much_is_marked():
    x = images()
    changed, where = apply_lesions(x, sample_lesions(len(x), seeded()))
    difference = (changed - x).abs()
    assert (where[difference > 4 * VISIBLE] > 0).float().mean() > 0.97
    for b in range(len(x)):
        marked = where[b] > 0.5
        if marked.any():
            assert difference[b][marked].mean() > VISIBLE
    far = torch.nn.functional.max_pool2d(where, 31, 1, 15) == 0
    assert difference[far].mean() < VISIBLE / 20


def test_an_image_has_its_own_lesion_whatever_the_others():
    x = images(6)
    drawn = sample_lesions(6, seeded())
    together, where = apply_lesions(x, drawn)
    chosen = torch.tensor([4, 1])
    alone, alone_where = apply_lesions(x[chosen], drawn[chosen])
    torch.testing.assert_close(alone, together[chosen])
    torch.testing.assert_close(alone_where, where[chosen])


def test_centres_are_on_the_tissue():
    x = images(200)
    drawn = of_kind(sample_lesions(200, seeded()), "plain")
    _, where = apply_lesions(x, dataclasses.replace(drawn, contrast=torch.full((200,), 0.3)))
    assert TISSUE < 0.3
    columns = torch.arange(SIDE).float()
    centres = (where[:, 0].sum(1) * columns).sum(1) / where.sum((1, 2, 3))
    assert where.flatten(1).any(dim=1).all()
    assert ((centres > 10) & (centres < SIDE - 10)).all()


def test_an_image_without_tissue_gets_one_anywhere():
    x = torch.zeros(40, 1, SIDE, SIDE)
    drawn = of_kind(sample_lesions(40, seeded()), "plain")
    _, where = apply_lesions(x, dataclasses.replace(drawn, contrast=drawn.contrast.abs()))
    assert where.flatten(1).any(dim=1).float().mean() > 0.9


def test_sizes_span_the_range():
    x = torch.full((300, 1, SIDE, SIDE), 0.5)
    drawn = of_kind(sample_lesions(300, seeded()), "plain")
    _, where = apply_lesions(x, dataclasses.replace(drawn, contrast=torch.full((300,), 0.4)))
    across = 2 * ((where > 0.5).sum((1, 2, 3)) / math.pi).sqrt() / SIDE
    middle = across[(drawn.place - 0.5).abs() < 0.3]  # whole: not cut off by the border
    assert middle.quantile(0.02) < 1.5 * SIZES[0] and middle.quantile(0.98) > 0.7 * SIZES[1]
    assert middle.max() < 1.6 * SIZES[1]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_shows_where_there_is_something_to_change(name):
    x = images(16) + 0.2 * torch.rand(16, 1, SIDE, SIDE, generator=seeded(9))
    x[..., :16], x[..., -16:] = 0, 0
    changed, where = apply_lesions(x, of_kind(sample_lesions(16, seeded()), name))
    assert torch.isfinite(changed).all()
    assert where.flatten(1).any(dim=1).float().mean() > 0.6


def test_the_signs_of_brighter_and_darker():
    x = torch.full((2, 1, SIDE, SIDE), 0.5)
    drawn = of_kind(sample_lesions(2, seeded()), "plain")
    drawn = dataclasses.replace(drawn, contrast=torch.tensor([0.3, -0.3]))
    changed, _ = apply_lesions(x, drawn)
    assert changed[0].max() > 0.75 and changed[0].min() > 0.49
    assert changed[1].min() < 0.25 and changed[1].max() < 0.51


def test_a_colour_lesion_has_a_colour():
    x = images(8, channels=3)
    drawn = of_kind(sample_lesions(8, seeded()), "plain")
    changed, where = apply_lesions(x, drawn)
    difference = (changed - x)[where.expand_as(x) > 0.9].view(-1)
    assert difference.std() > 0.02


@pytest.mark.parametrize("side", [64, 96, 256])
def test_sizes_do_not_depend_on_the_resolution(side):
    drawn = of_kind(sample_lesions(100, seeded()), "plain")
    drawn = dataclasses.replace(drawn, contrast=torch.full((100,), 0.4))
    areas = [
        apply_lesions(torch.full((100, 1, s, s), 0.5), drawn)[1].mean().item() for s in (side, 128)
    ]
    assert areas[0] == pytest.approx(areas[1], rel=0.15)
