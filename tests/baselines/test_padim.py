import numpy as np
import pytest
import torch
from planted import assert_finds_planted, blobs, small_budget

from scrd.baselines.padim import (
    EPSILON,
    PaDiM,
    PositionMoments,
    inverse_factors_,
    position_distances,
)


def gaussians(positions, count, dimension, seed, offset=0.0):
    """Planted features, (positions, count, dimension): its own Gaussian at every position."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(positions, dimension, dimension))
    mean = offset + rng.normal(size=(positions, 1, dimension))
    return mean + rng.normal(size=(positions, count, dimension)) @ mixing.transpose(0, 2, 1)


def accumulated(features, sizes):
    moments = PositionMoments()
    for batch in torch.from_numpy(features).float().split(sizes, dim=1):
        moments.add(batch)
    return moments


@pytest.mark.parametrize("sizes", [[23], [8, 8, 7], [1] * 23])
def test_streamed_moments_are_those_of_numpy(sizes):
    # far from zero, where sums of squares in float32 would fail
    features = gaussians(5, 23, 4, seed=0, offset=500.0)
    moments = accumulated(features, sizes)
    covariance = moments.covariance()
    for p in range(5):
        np.testing.assert_allclose(moments.mean[p].numpy(), features[p].mean(axis=0), rtol=1e-5)
        expected = np.cov(features[p], rowvar=False) + EPSILON * np.eye(4)
        np.testing.assert_allclose(covariance[p].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_distances_are_those_of_a_naive_loop():
    features = gaussians(6, 40, 4, seed=1)
    moments = accumulated(features, [40])
    whitening = inverse_factors_(moments.covariance())
    test = gaussians(6, 3, 4, seed=2)
    distances = position_distances(torch.from_numpy(test).float(), moments.mean, whitening)
    for p in range(6):
        inverse = np.linalg.inv(np.cov(features[p], rowvar=False) + EPSILON * np.eye(4))
        for b in range(3):
            d = test[p, b] - features[p].mean(axis=0)
            assert float(distances[p, b]) == pytest.approx(np.sqrt(d @ inverse @ d), rel=1e-3)


def test_factors_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    covariance = accumulated(gaussians(7, 30, 4, seed=3), [30]).covariance()
    whole = inverse_factors_(covariance.clone())
    monkeypatch.setattr("scrd.baselines.padim._CHUNK", 32)  # two positions
    assert torch.equal(inverse_factors_(covariance.clone()), whole)


def test_a_deviation_counts_more_where_normals_vary_less():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(2, 400, 3)) * np.array([3.0, 1.0, 0.3])
    features[1] = features[1, :, ::-1]  # the other way round at the second position
    moments = accumulated(features, [100] * 4)
    whitening = inverse_factors_(moments.covariance())
    steps = moments.mean[:, None] + torch.eye(3)  # one unit along each axis
    distances = position_distances(steps, moments.mean, whitening)
    assert distances[0, 2] > 2 * distances[0, 1] > 4 * distances[0, 0]
    assert distances[1, 0] > 2 * distances[1, 1] > 4 * distances[1, 2]


def test_epsilon_keeps_fewer_images_than_channels_finite():
    model = PaDiM(small_budget())
    model.fit(blobs(3, seed=0))
    assert model.whitening.shape == (16 * 16, 100, 100)
    assert torch.isfinite(model.score(blobs(2, seed=1)).maps).all()


def test_channels_are_a_subset_that_the_seed_decides():
    first, same, other = (PaDiM(small_budget(seed=s)).channels for s in (0, 0, 1))
    assert len(first.unique()) == 100
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_finds_planted_anomalies_and_where_they_are():
    answer = assert_finds_planted(PaDiM(small_budget()))
    assert torch.equal(answer.scores, answer.maps.amax(dim=(1, 2)))
