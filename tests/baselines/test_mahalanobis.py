import numpy as np
import pytest
import torch
from planted import blobs, planted, small_budget
from sklearn.covariance import LedoitWolf

from scrd.baselines.mahalanobis import Mahalanobis, ledoit_wolf
from scrd.metrics.ranks import auroc


@pytest.mark.parametrize(("count", "dimension"), [(8, 30), (200, 12)])
def test_shrinkage_is_that_of_scikit_learn(count, dimension):
    rng = np.random.default_rng(count)
    samples = 7 + rng.normal(size=(count, dimension)) @ rng.normal(size=(dimension, dimension))
    oracle = LedoitWolf().fit(samples)
    covariance, intensity = ledoit_wolf(torch.from_numpy(samples))
    assert 0 < oracle.shrinkage_ < 1
    assert intensity == pytest.approx(oracle.shrinkage_, rel=1e-9)
    np.testing.assert_allclose(covariance.numpy(), oracle.covariance_, rtol=1e-9, atol=1e-9)


def test_score_is_the_mahalanobis_distance_of_the_averaged_features():
    train, test = blobs(30, seed=0), blobs(4, seed=1)
    model = Mahalanobis(small_budget())
    model.fit(train)

    def averaged(images):
        return np.concatenate([u.numpy().mean(axis=(2, 3)) for u in model.teacher(images)], axis=1)

    oracle = LedoitWolf().fit(averaged(train).astype(np.float64))
    np.testing.assert_allclose(
        model.score(test).scores.numpy(), np.sqrt(oracle.mahalanobis(averaged(test))), rtol=1e-3
    )
    assert model.score(test).maps is None


def test_separates_planted_anomalies():
    model = Mahalanobis(small_budget())
    model.fit(blobs(40, seed=0))
    images, labels = planted(10, seed=1)
    assert auroc(model.score(images).scores.numpy(), labels) > 0.9
