"""Each probe changes what it says, where it says, by as much as it says."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import kurtosis

from scrd.synthesis.probes import PROBES

SIDE = 96


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def colour_images(count=12):
    smooth = torch.rand(count, 3, 8, 8, generator=seeded(5))
    return 0.2 + 0.6 * torch.nn.functional.interpolate(smooth, SIDE, mode="bicubic").clamp(0, 1)


def grey_images(count=12):
    return colour_images(count)[:, :1].expand(-1, 3, -1, -1).contiguous()


def bounding_sides(changed):
    """(H, W) bool -> height and width of the box around what is true."""
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


@pytest.mark.parametrize("name", PROBES)
def test_replays_from_its_seed_keeps_the_input_and_stays_in_range(name):
    x = colour_images()
    original = x.clone()
    changed = PROBES[name](x, seeded())
    assert changed.shape == x.shape and changed.dtype == x.dtype
    assert torch.equal(x, original)
    assert torch.equal(changed, PROBES[name](x, seeded()))
    assert changed.min() >= 0 and changed.max() <= 1
    assert (changed != x).flatten(1).any(1).all()
    extremes = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, SIDE, SIDE)
    clamped = PROBES[name](extremes, seeded())
    assert clamped.min() >= 0 and clamped.max() <= 1


@pytest.mark.parametrize("name", [name for name in PROBES if name not in ("blur", "sharpen")])
def test_each_image_and_each_draw_gets_its_own_change(name):
    x = colour_images(1).expand(8, -1, -1, -1).contiguous()
    first, second = PROBES[name](x, seeded(0)), PROBES[name](x, seeded(1))
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) >= 14


@pytest.mark.parametrize("name", PROBES)
def test_lesions_are_small_and_harmless_changes_are_everywhere(name):
    x = colour_images()
    difference = (PROBES[name](x, seeded()) - x).abs().amax(1)
    visible = (difference > 1e-4).float().mean((1, 2))
    if PROBES[name].kind == "lesion":
        assert visible.max() < 0.5
    else:
        assert visible.min() > 0.5


def test_the_kinds():
    kinds = {name: probe.kind for name, probe in PROBES.items()}
    assert {name for name, kind in kinds.items() if kind == "lesion"} == {
        *("simplex_patch", "blob", "cut_paste")
    }
    assert {name for name, kind in kinds.items() if kind == "harmless"} == {
        *("blur", "sharpen", "noise", "tone")
    }


@pytest.mark.parametrize("name", ["simplex_patch", "cut_paste"])
def test_patch_sides_lie_between_an_eighth_and_a_quarter(name):
    x = torch.rand(200, 3, SIDE, SIDE, generator=seeded(2)) * 0.5 + 0.25
    changed = (PROBES[name](x, seeded()) != x).any(1)
    sides = [side for image in changed for side in bounding_sides(image)]
    assert min(sides) <= SIDE // 8 + 1
    assert SIDE // 4 - 1 <= max(sides) <= SIDE // 4


def test_cut_paste_copies_from_the_same_image():
    x = torch.arange(4 * 3 * SIDE * SIDE, dtype=torch.float64).reshape(4, 3, SIDE, SIDE)
    x /= x.numel()
    rows_moved = []
    pasted = PROBES["cut_paste"](x, seeded())
    for before, after in zip(x, pasted, strict=True):
        changed = (before != after).any(0)
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        window = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        shift = (after[window] - before[window]).flatten()
        # in a ramp, moving a patch adds the same amount everywhere
        torch.testing.assert_close(shift, shift[:1].expand_as(shift))
        rows_moved.append(abs(float(shift[0])) * x.numel() / SIDE)
    assert max(rows_moved) > SIDE / 4


def test_blob_is_grey_gaussian_and_of_stated_size():
    x = torch.full((300, 3, SIDE, SIDE), 0.5, dtype=torch.float64)
    change = PROBES["blob"](x, seeded()) - x
    assert torch.equal(change[:, 0], change[:, 1]) and torch.equal(change[:, 0], change[:, 2])
    peak = change[:, 0].flatten(1).abs().amax(1)
    assert peak.min() > 0.22
    assert peak.max() <= 0.25
    bright = change[:, 0].flatten(1).sum(1) > 0
    assert 0.4 < bright.double().mean() < 0.6
    # second moment along x of an isotropic Gaussian is R^2; those cut by the border are left out
    share = change[:, 0].abs()
    edge = torch.cat([share[:, 0], share[:, -1], share[:, :, 0], share[:, :, -1]], 1).amax(1)
    share = share[edge < 1e-4]
    weight = share.sum(1) / share.sum((1, 2))[:, None]
    place = torch.arange(SIDE).double()
    mean = (weight * place).sum(1, keepdim=True)
    radius = (weight * (place - mean) ** 2).sum(1).sqrt()
    assert radius.min() > 0.04 * SIDE * 0.98
    assert radius.max() < 0.10 * SIDE * 1.02
    assert radius.min() < 0.055 * SIDE and radius.max() > 0.085 * SIDE


@pytest.mark.parametrize(("level", "sign"), [(0.0, 1), (1.0, -1)])
def test_blob_shows_on_black_and_on_white(level, sign):
    x = torch.full((40, 3, SIDE, SIDE), level)
    change = sign * (PROBES["blob"](x, seeded()) - x)
    assert change.flatten(1).amax(1).min() > 0.2


def test_noise_is_white_gaussian_and_grey():
    x = torch.full((100, 3, SIDE, SIDE), 0.5)
    change = PROBES["noise"](x, seeded()) - x
    assert torch.equal(change[:, 0], change[:, 1]) and torch.equal(change[:, 0], change[:, 2])
    grain = change[:, 0].double().numpy()
    assert grain.mean() == pytest.approx(0, abs=3 * 0.03 / np.sqrt(grain.size))
    assert grain.std() == pytest.approx(0.03, rel=0.01)
    assert kurtosis(grain, axis=None) == pytest.approx(0, abs=0.03)
    for neighbour in (grain[:, 1:] * grain[:, :-1], grain[:, :, 1:] * grain[:, :, :-1]):
        assert abs(neighbour.mean()) < 0.01 * 0.03**2  # not correlated


def test_blur_is_scipys_gaussian_filter():
    x = torch.rand(2, 3, 200, 160, generator=seeded(1), dtype=torch.float64)
    sigma = 0.008 * 160
    expected = gaussian_filter(
        x.numpy(), sigma, mode="mirror", axes=(2, 3), radius=int(np.ceil(4 * sigma))
    )
    np.testing.assert_allclose(PROBES["blur"](x, seeded()).numpy(), expected, atol=1e-6)


def test_sharpen_adds_what_blur_takes_away():
    x = colour_images().double()
    blurred, sharp = (PROBES[name](x, seeded()).numpy() for name in ("blur", "sharpen"))
    np.testing.assert_allclose(sharp - x.numpy(), x.numpy() - blurred, atol=1e-12)

    def steepness(image):
        return np.abs(np.diff(image, axis=3)).mean(axis=(1, 2, 3))

    assert (steepness(sharp) > steepness(x.numpy())).all()
    assert (steepness(x.numpy()) > steepness(blurred)).all()
    # where that leaves [0, 1], it is clamped
    edges = (x > 0.5).double()
    unclamped = 2 * edges - PROBES["blur"](edges, seeded())
    assert unclamped.min() < -0.1 and unclamped.max() > 1.1
    torch.testing.assert_close(PROBES["sharpen"](edges, seeded()), unclamped.clamp(0, 1))


def test_tone_is_a_power_law_and_keeps_grey_grey():
    x = grey_images()
    changed = PROBES["tone"](x, seeded())
    exponent = (changed.log() / x.log()).flatten(1)
    assert exponent.std(1).max() < 1e-3
    assert {round(value, 2) for value in exponent.mean(1).tolist()} == {0.75, 1.33}


def test_tone_shifts_the_channels_of_colour_images():
    x = colour_images(200)
    changed = PROBES["tone"](x, seeded())
    low = (changed / x**0.75).flatten(2)
    high = (changed / x**1.33).flatten(2)
    gain = torch.where(low.std(2) < high.std(2), low.mean(2), high.mean(2))
    assert 0.949 < gain.min() < 0.955 and 1.045 < gain.max() < 1.051
    assert (gain.amax(1) - gain.amin(1)).min() > 0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="B, 3, H, W"):
        PROBES["blob"](torch.zeros(2, 1, 32, 32), seeded())
