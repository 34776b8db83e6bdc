import math

import pytest
import torch
from planted import blobs, planted, small_budget
from torch.testing import assert_close

from scrd.baselines import anomalydino
from scrd.baselines.anomalydino import AnomalyDINO, deepest_tokens, tail_mean
from scrd.metrics.ranks import auroc


def test_distances_and_score_are_those_of_a_loop_over_every_normal_token():
    train, (test, _) = blobs(5, seed=0), planted(2, seed=1)
    model = AnomalyDINO(small_budget())
    model.fit(train)
    answer = model.score(test)
    normal = [list(t) for u in model.teacher(train)[2] for t in u.flatten(1).T.tolist()]
    for image, score in zip(model.teacher(test)[2], answer.scores, strict=True):
        distances = []
        for token in image.flatten(1).T.tolist():
            cosines = [
                sum(a * b for a, b in zip(token, other, strict=True))
                / math.hypot(*token)
                / math.hypot(*other)
                for other in normal
            ]
            distances.append(1 - max(cosines))
        assert float(score) == pytest.approx(max(distances), abs=1e-5)  # of 16, a hundredth is one


def test_the_score_is_the_mean_of_the_farthest_hundredth():
    distances = torch.rand(2, 350, generator=torch.Generator().manual_seed(0))
    expected = [sum(sorted(row)[-3:]) / 3 for row in distances.tolist()]
    assert tail_mean(distances).tolist() == pytest.approx(expected)
    assert_close(tail_mean(distances[:, :20]), distances[:, :20].amax(dim=1))


def test_tokens_are_positions_of_the_deepest_map_row_by_row():
    maps = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
    tokens = deepest_tokens((maps[:0], maps[:0], maps))
    assert tokens.shape == (2, 20, 3)
    assert torch.equal(tokens[1, 5 * 2 + 3], maps[1, :, 2, 3])


def test_all_tokens_are_remembered_up_to_a_bound(monkeypatch):
    train = blobs(6, seed=0)
    model = AnomalyDINO(small_budget())
    model.fit(train)
    every = model.memory
    assert every.shape == (6 * 16, 112)
    assert_close(every.norm(dim=1), torch.ones(96))
    monkeypatch.setattr(anomalydino.AnomalyDINO, "remembered", 50)
    model.fit(train)
    assert model.memory.shape == (50, 112)
    nearest = torch.cdist(model.memory, every)
    assert nearest.amin(dim=1).max() < 1e-3
    assert len(set(nearest.argmin(dim=1).tolist())) == 50  # none twice


def test_normals_that_were_seen_are_at_no_distance():
    train = blobs(4, seed=0)
    model = AnomalyDINO(small_budget())
    model.fit(train)
    assert model.score(train).maps.abs().max() < 1e-5


def test_planted_anomalies_score_higher_and_most_around_their_place():
    model = AnomalyDINO(small_budget())
    model.fit(blobs(40, seed=0))
    images, labels = planted(10, seed=1)
    answer = model.score(images)
    assert auroc(answer.scores.numpy(), labels) > 0.95
    # the grid is 4 x 4, too coarse for the place of a maximum
    change = (answer.maps[10:] - model.score(blobs(20, seed=1)[10:]).maps).mean(dim=0)
    assert change[8:32, 30:54].mean() > 1.4 * change[32:56, 10:34].mean()
