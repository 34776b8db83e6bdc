"""What is normal at each position, against loops over positions."""

import numpy as np
import pytest
import torch

from scrd.model import build_model
from scrd.model.normals import FLOOR, NormalDistances

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
def test_statistics_and_excess_against_loops(size):
    assert FLOOR == 0.3
    parts = batches(size)
    normals = NormalDistances(size)
    normals.fit(iter(parts))
    expected = naive_statistics(size, parts)
    new = batches(size, counts=(2,), seed=1)[0]
    excess = normals.excess(new)
    for k, (mean, std) in enumerate(expected):
        np.testing.assert_allclose(normals.get_buffer(f"mean{k}"), mean, rtol=1e-5)
        np.testing.assert_allclose(normals.get_buffer(f"std{k}"), std, rtol=1e-5)
        z = (new[k].numpy() - mean) / std
        np.testing.assert_allclose(excess[k], np.where(z > 0, z, 0), atol=1e-4)
        assert (z < -0.1).any() and (z > 1).any()


def test_where_normals_agree_a_trifle_does_not_count_without_bound():
    parts = [[torch.rand(6, s, s, generator=torch.Generator().manual_seed(s)) for s in SIDES[64]]]
    for maps in parts[0]:
        maps[:, 0, 0] = 0.2  # a corner that is always black
    normals = NormalDistances(64)
    normals.fit(parts)
    above = [normals.get_buffer(f"mean{k}")[None] + 0.01 for k in range(3)]
    for k, excess in enumerate(normals.excess(above)):
        corner = 0.01 / (FLOOR * parts[0][k].std(correction=0).item())
        assert excess[0, 0, 0].item() == pytest.approx(corner, rel=1e-4)
        assert corner < 0.2


def test_normals_that_never_vary_give_no_infinity():
    normals = NormalDistances(64)
    normals.fit([[torch.full((2, s, s), 0.5) for s in SIDES[64]]])
    for excess in normals.excess([torch.full((1, s, s), 0.6) for s in SIDES[64]]):
        assert torch.isfinite(excess).all()


@pytest.mark.parametrize("size", SIDES)
def test_statistics_travel_with_the_weights_of_a_model(size):
    def model(image_size):
        with pytest.warns(UserWarning, match="RANDOM"):
            return build_model("resnet18", "random", image_size=image_size)

    first, second = model(size), model(size)
    first.normals.fit(batches(size))
    second.load_state_dict(first.state_dict())
    new = batches(size, seed=2)[0]
    for a, b in zip(first.normals.excess(new), second.normals.excess(new), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.normals.mean0, torch.zeros_like(first.normals.mean0))
    with pytest.raises(RuntimeError, match="normals.mean0"):
        model(size + 32).load_state_dict(first.state_dict())
