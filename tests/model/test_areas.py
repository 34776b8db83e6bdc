"""Area means and the score that takes the most unusual of them, against loops."""

import math

import numpy as np
import pytest
import torch

from scrd.model.areas import CELL, SHARES, AreaScore, area_means

SIDE = 128


def naive(values, content):
    """Cells in a loop, then the mean of the highest share."""
    cells = []
    for y in range(0, SIDE, CELL):
        for x in range(0, SIDE, CELL):
            inside = content[y : y + CELL, x : x + CELL]
            if inside.any():
                cells.append(values[y : y + CELL, x : x + CELL][inside].mean())
    ranked = sorted(cells, reverse=True)
    return [np.mean(ranked[: max(1, math.floor(q * len(ranked) + 1e-6))]) for q in SHARES]


def maps(count=3, seed=0):
    return torch.randn(count, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_area_means_with_padding():
    found = maps()
    content = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    content[1, :21], content[2] = False, False
    content[2, 3:5, 60:70] = True  # two cells in part
    found[~content] = 100.0
    means = area_means(found, content)
    for b in range(3):
        expected = naive(found[b].double().numpy(), content[b].numpy())
        np.testing.assert_allclose(means[b], expected, rtol=1e-4, atol=1e-5)


def test_the_smaller_the_area_the_higher_its_mean():
    means = area_means(maps(), torch.ones(3, SIDE, SIDE, dtype=torch.bool))
    assert (means.diff(dim=1) >= 0).all()


def test_the_score_is_the_most_unusual_area():
    everywhere = torch.ones(40, SIDE, SIDE, dtype=torch.bool)
    score = AreaScore()
    score.fit([(maps(40), everywhere)])
    assert score(maps(40), everywhere).mean().abs() < 2
    one = everywhere[:1]
    quiet = score(maps(1, 5), one).item()
    spot, haze = maps(1, 5), maps(1, 5) + 0.2
    spot[0, 40:56, 64:80] += 3
    for changed, share in ((spot, SHARES[-1]), (haze, SHARES[0])):
        z = (area_means(changed, one) - score.mean) / score.std
        assert SHARES[z[0].argmax()] == share or share == SHARES[-1] and z[0].argmax() >= 3
        assert score(changed, one).item() == pytest.approx(z.max().item())
        assert score(changed, one).item() > quiet + 5


def test_normals_that_are_all_alike_give_no_infinity():
    score = AreaScore()
    everywhere = torch.ones(4, SIDE, SIDE, dtype=torch.bool)
    score.fit([(torch.zeros(4, SIDE, SIDE), everywhere)])
    assert torch.isfinite(score(torch.zeros(4, SIDE, SIDE), everywhere)).all()
