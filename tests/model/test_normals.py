"""What is normal at each position, against loops over positions."""

import numpy as np
import pytest
import torch

from scrd.model import build_model
from scrd.model.normals import FLOOR, NormalMaps

OWN = (1, 1, 1)
SIDES = {64: (16, 8, 4), 128: (32, 16, 8)}


def batches(size, counts=(3, 1, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.rand(n, s, s, generator=generator) ** 3 for s in SIDES[size]] for n in counts]


def naive_statistics(size, parts):
    """Mean and floored standard deviation of each scale, position by position."""
    found = []
    for k, side in enumerate(SIDES[size]):
        maps = [image.double().numpy() for part in parts for image in part[k]]
        everything = [value for image in maps for value in image.ravel()]
        overall = sum(everything) / len(everything)
        floor = FLOOR * (sum((v - overall) ** 2 for v in everything) / len(everything)) ** 0.5
        mean, std = np.zeros((side, side)), np.zeros((side, side))
        for y in range(side):
            for x in range(side):
                values = [image[y, x] for image in maps]
                mean[y, x] = sum(values) / len(values)
                variance = sum((v - mean[y, x]) ** 2 for v in values) / len(values)
                std[y, x] = variance**0.5 + floor
        found.append((mean, std))
    return found


@pytest.mark.parametrize("size", SIDES)
def test_statistics_and_reading_against_loops(size):
    assert FLOOR == 0.3
    parts = batches(size)
    normals = NormalMaps(SIDES[size], (0, 0, 0))
    normals.fit(iter(parts), OWN)
    expected = naive_statistics(size, parts)
    new = batches(size, counts=(2,), seed=1)[0]
    read = normals(new)
    for k, (mean, std) in enumerate(expected):
        np.testing.assert_allclose(normals.get_buffer(f"mean{k}"), mean, rtol=1e-5)
        np.testing.assert_allclose(normals.get_buffer(f"std{k}"), std, rtol=1e-5)
        z = (new[k].numpy() - mean) / std
        np.testing.assert_allclose(read[k], z, atol=1e-4)
        assert (z < -0.1).any() and (z > 1).any()


def test_where_normals_agree_a_trifle_does_not_count_without_bound():
    parts = [[torch.rand(6, s, s, generator=torch.Generator().manual_seed(s)) for s in SIDES[64]]]
    for maps in parts[0]:
        maps[:, 0, 0] = 0.2  # a corner that is always black
    normals = NormalMaps(SIDES[64], (0, 0, 0))
    normals.fit(parts, OWN)
    above = [normals.get_buffer(f"mean{k}")[None] + 0.01 for k in range(3)]
    for k, read in enumerate(normals(above)):
        corner = 0.01 / (FLOOR * parts[0][k].std(correction=0).item())
        assert read[0, 0, 0].item() == pytest.approx(corner, rel=1e-4)
        assert corner < 0.2


def test_normals_that_never_vary_give_no_infinity():
    normals = NormalMaps(SIDES[64], (0, 0, 0))
    normals.fit([[torch.full((2, s, s), 0.5) for s in SIDES[64]]], OWN)
    for read in normals([torch.full((1, s, s), 0.6) for s in SIDES[64]]):
        assert torch.isfinite(read).all()


def test_statistics_of_all_positions_together_and_half_way():
    parts = batches(64)
    own, half, common = (NormalMaps(SIDES[64], (0, 0, 0)) for _ in range(3))
    for normals, share in ((own, 1), (half, 0.5), (common, 0)):
        normals.fit(parts, (share,) * 3)
    for k in range(3):
        everything = torch.cat([part[k] for part in parts]).double()
        assert common.get_buffer(f"mean{k}").unique().tolist() == pytest.approx(
            [everything.mean().item()]
        )
        spread = everything.std(correction=0).item()
        assert common.get_buffer(f"std{k}").unique().tolist() == pytest.approx([spread])
        for name in (f"mean{k}", f"std{k}"):
            between = (own.get_buffer(name) + common.get_buffer(name)) / 2
            torch.testing.assert_close(half.get_buffer(name), between)


@pytest.mark.parametrize("size", SIDES)
def test_statistics_travel_with_the_weights_of_a_model(size):
    def model(image_size):
        with pytest.warns(UserWarning, match="RANDOM"):
            return build_model("resnet18", "random", image_size=image_size)

    first, second = model(size), model(size)
    first.normals.fit(batches(size), OWN)
    second.load_state_dict(first.state_dict())
    new = batches(size, seed=2)[0]
    for a, b in zip(first.normals(new), second.normals(new), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.normals.mean0, torch.zeros_like(first.normals.mean0))
    with pytest.raises(RuntimeError, match="normals.mean0"):
        model(size + 32).load_state_dict(first.state_dict())


def test_a_level_is_taken_away_in_part():
    parts = batches(64)
    shifted = [[m + 5 * torch.rand(len(m), 1, 1) for m in part] for part in parts]
    for share in (0.5, 1):
        normals = NormalMaps(SIDES[64], (share,) * 3)
        normals.fit(shifted, OWN)
        plain = NormalMaps(SIDES[64], (0, 0, 0))
        plain.fit(
            [[m - share * m.mean((1, 2), keepdim=True) for m in part] for part in shifted], OWN
        )
        for a, b in zip(normals.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(a, b)
        brighter = [m + 3 for m in shifted[0]]
        for a, b, std in zip(
            normals(shifted[0]), normals(brighter), normals.buffers(), strict=False
        ):
            assert (b - a).abs().max() < 1e-3 if share == 1 else (b - a).min() > 0, std
