from itertools import combinations

import numpy as np
import pytest
import torch
from planted import assert_finds_planted, blobs, small_budget
from scipy.spatial.distance import cdist

from scrd.baselines import patchcore
from scrd.baselines.patchcore import (
    PatchCore,
    greedy_k_center,
    nearest_distances,
    reweighted_score,
)


def clusters(seed, count=1500, dimension=8):
    """Points of very unequal density: most in one lump, the rest in small far ones."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 10, size=(12, dimension))
    which = np.where(rng.random(count) < 0.9, 0, rng.integers(1, 12, count))
    return (centres[which] + rng.normal(size=(count, dimension))).astype(np.float32)


def radius(points, chosen):
    return cdist(points, points[list(chosen)]).min(axis=1).max()


def test_coreset_is_the_greedy_choice():
    points = clusters(0, count=120)
    chosen = [5]
    for _ in range(19):
        chosen.append(int(cdist(points, points[chosen]).min(axis=1).argmax()))
    assert greedy_k_center(torch.from_numpy(points), 20, start=5).tolist() == chosen


def test_coreset_covers_better_than_random_subsets():
    points = clusters(1)
    greedy = radius(points, greedy_k_center(torch.from_numpy(points), 40, start=0).tolist())
    rng = np.random.default_rng(2)
    best_random = min(radius(points, rng.permutation(1500)[:40]) for _ in range(50))
    assert greedy < 0.7 * best_random


@pytest.mark.parametrize("start", range(12))
def test_radius_is_within_twice_the_optimum(start):
    points = clusters(3, count=12, dimension=2)
    optimum = min(radius(points, subset) for subset in combinations(range(12), 4))
    greedy = radius(points, greedy_k_center(torch.from_numpy(points), 4, start).tolist())
    assert optimum <= greedy * (1 + 1e-6)
    assert greedy <= 2 * optimum * (1 + 1e-6)


def test_no_point_is_chosen_twice_even_among_duplicates():
    points = torch.ones(10, 3)
    points[0] = 0
    assert greedy_k_center(points, 10, start=4).sort().values.tolist() == list(range(10))


def test_nearest_distances_are_those_of_scipy():
    bank, patches = clusters(4, count=300), clusters(5, count=40)
    patches[7] = bank[123]
    distance, nearest = nearest_distances(torch.from_numpy(patches), torch.from_numpy(bank))
    oracle = cdist(patches, bank)
    np.testing.assert_allclose(distance.numpy(), oracle.min(axis=1), rtol=1e-5, atol=1e-6)
    assert nearest.tolist() == oracle.argmin(axis=1).tolist()
    assert distance[7] == 0


def test_score_is_reweighted_as_in_the_paper():
    rng = np.random.default_rng(6)
    bank, patches = rng.normal(size=(60, 5)), rng.normal(size=(20, 5)) * 1.5
    d = cdist(patches, bank)
    worst = d.min(axis=1).argmax()
    star = d[worst].argmin()
    around = cdist(bank[[star]], bank)[0].argsort()[:9]
    assert star in around
    weight = 1 - np.exp(d[worst, star]) / np.exp(d[worst, around]).sum()
    tensors = torch.from_numpy(patches), torch.from_numpy(bank)
    score = reweighted_score(*tensors, *nearest_distances(*tensors))
    assert float(score) == pytest.approx(weight * d[worst, star], rel=1e-9)
    assert 0.01 < 1 - weight < 0.9


def test_weight_survives_distances_whose_exponential_overflows():
    bank, patches = torch.randn(60, 5).double() * 1e4, torch.full((1, 5), 1e5).double()
    distance, nearest = nearest_distances(patches, bank)
    score = reweighted_score(patches, bank, distance, nearest)
    assert 0 <= score <= distance.max()


def test_bank_is_bounded_and_made_of_training_patches(monkeypatch):
    monkeypatch.setattr(patchcore, "POOL_LIMIT", 200)
    monkeypatch.setattr(patchcore, "BANK_LIMIT", 20)
    monkeypatch.setattr(patchcore, "CORESET_FRACTION", 0.5)
    monkeypatch.setattr("scrd.baselines.features.BATCH", 4)
    train = blobs(10, seed=0)
    model = PatchCore(small_budget())
    model.fit(train)
    assert model.bank.shape == (20, 152)
    features = model.teacher(train)
    every = patchcore.patch_features(features).flatten(0, 1).numpy()
    distance = cdist(model.bank.numpy(), every)
    assert distance.min(axis=1).max() < 1e-2
    # drawn from all batches, not from the first ones
    assert (distance.argmin(axis=1) // 64).max() >= 8


def test_patches_average_their_neighbourhood_on_the_two_deeper_scales():
    model = PatchCore(small_budget())
    features = model.teacher(blobs(2, seed=0))
    patches = patchcore.patch_features(features)
    assert patches.shape == (2, 64, 40 + 112)
    middle = features[1].numpy()
    inner = middle[1, :, 2:5, 4:7].mean(axis=(1, 2))
    corner = middle[1, :, :2, :2].mean(axis=(1, 2))
    np.testing.assert_allclose(patches[1, 3 * 8 + 5, :40].numpy(), inner, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(patches[1, 0, :40].numpy(), corner, rtol=1e-4, atol=1e-5)


def test_finds_planted_anomalies_and_where_they_are():
    assert_finds_planted(PatchCore(small_budget()))
