"""Smoothed maps: scipy's filter, with its border, wherever maps are made."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from scrd.model import build_model
from scrd.model.scores import Scores
from scrd.model.smoothing import Smoothing, gaussian_matrix


@pytest.mark.parametrize("size", [8, 64, 96])  # at 8 the filter is wider than the map
@pytest.mark.parametrize("sigma", [0.7, 1.5, 4.0])
def test_equals_scipy(size, sigma):
    maps = np.random.default_rng(0).random((3, size, size)).astype(np.float32)
    maps[0, 0, 0] = maps[1, -1, size // 2] = 30  # the border counts
    found = Smoothing(size, sigma)(torch.from_numpy(maps)).numpy()
    for ours, one in zip(found, maps, strict=True):
        expected = gaussian_filter(one.astype(np.float64), sigma, mode="reflect", truncate=4.0)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_the_mean_stays_and_the_maximum_does_not():
    matrix = gaussian_matrix(64, 4.0)
    torch.testing.assert_close(matrix.sum(dim=0), torch.ones(64))
    torch.testing.assert_close(matrix, matrix.T)
    maps = torch.rand(2, 64, 64)
    smoothed = Smoothing(64, 4.0)(maps)
    torch.testing.assert_close(smoothed.mean(dim=(1, 2)), maps.mean(dim=(1, 2)))
    assert (smoothed.amax(dim=(1, 2)) < maps.amax(dim=(1, 2))).all()


def test_none_leaves_a_map_as_it_is():
    maps = torch.rand(2, 64, 64)
    assert Smoothing(64, 0.0)(maps) is maps


@pytest.mark.parametrize("objective", ["rd", "paper"])
def test_scores_are_those_of_smoothed_maps(objective):
    def built(smoothing):
        torch.manual_seed(0)
        return build_model(
            "efficientnet_lite0", "random", False, 64, objective=objective, smoothing=smoothing
        ).eval()

    plain, smooth = built(0.0), built(2.0)
    assert plain.state_dict().keys() == smooth.state_dict().keys()  # no new tensor is saved
    images, content = torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64, dtype=torch.bool)
    with torch.inference_mode():
        a, b = Scores(plain)(images, content), Scores(smooth)(images, content)
    for x, y in zip(a.maps.numpy(), b.maps.numpy(), strict=True):
        expected = gaussian_filter(x.astype(np.float64), 2.0, mode="reflect")
        np.testing.assert_allclose(y, expected, atol=1e-6)
    torch.testing.assert_close(b.statistics["max"], b.maps.amax(dim=(1, 2)))
    torch.testing.assert_close(b.statistics["mean"], a.statistics["mean"], rtol=1e-4, atol=0)
    torch.testing.assert_close(b.statistics["excess"], a.statistics["excess"])
