import numpy as np
import torch
from planted import assert_finds_planted, blobs, small_budget
from scipy.spatial.distance import cdist

from scrd.baselines import knn
from scrd.baselines.features import patch_features
from scrd.baselines.knn import KNN, nearest_cosine_distances


def test_distances_are_those_of_scipy_in_whatever_chunks(monkeypatch):
    monkeypatch.setattr(knn, "_CHUNK", 7)
    rng = np.random.default_rng(0)
    patches, memory = rng.normal(size=(40, 5)), rng.normal(size=(60, 5))
    patches[3] = 9 * memory[11]
    expected = cdist(patches, memory, "cosine").min(axis=1)
    memory /= np.linalg.norm(memory, axis=1, keepdims=True)
    found = nearest_cosine_distances(*(torch.from_numpy(a).float() for a in (patches, memory)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert 0 <= found[3] < 1e-6


def test_memory_is_a_draw_from_all_training_images(monkeypatch):
    monkeypatch.setattr(knn.KNN, "remembered", 50)
    monkeypatch.setattr("scrd.baselines.features.BATCH", 4)
    train = blobs(10, seed=0)
    model = KNN(small_budget())
    model.fit(train)
    assert model.memory.shape == (50, 152)
    np.testing.assert_allclose(model.memory.norm(dim=1).numpy(), 1, rtol=1e-5)
    every = patch_features(model.teacher(train)).flatten(0, 1).numpy()
    distance = cdist(model.memory.numpy(), every, "cosine")
    assert distance.min(axis=1).max() < 1e-4
    nearest = distance.argmin(axis=1)
    assert len(set(nearest)) == 50  # none twice
    assert set(nearest // 64 // 4) == {0, 1, 2}  # of every batch


def test_the_score_is_the_maps_maximum_and_normals_that_were_seen_have_none():
    train = blobs(4, seed=0)
    model = KNN(small_budget())
    model.fit(train)  # 256 positions: all are remembered
    answer = model.score(train)
    assert torch.equal(answer.scores, answer.maps.amax(dim=(1, 2)))
    assert answer.maps.abs().max() < 1e-5


def test_finds_planted_anomalies_and_where_they_are():
    assert_finds_planted(KNN(small_budget()))
