"""UCAD: prompts move the features, keys choose the task."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted import blobs, planted, small_budget

from scrd.baselines.features import extract, patch_features
from scrd.baselines.ucad import (
    MEMORY,
    UCAD,
    Prompt,
    prompted_layers,
    regions,
    structure_loss,
)
from scrd.metrics.ranks import auroc
from scrd.model.teacher import build_teacher


def stripes(count, seed):
    """Images of another kind than ``blobs``: diagonal waves of varying phase."""
    phase = 6.3 * torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return 0.5 + 0.4 * torch.sin((x + y) / 3 + phase)


@pytest.fixture(scope="module")
def continual():
    """Learns blobs, then stripes; and what it answered to blobs in between."""
    model = UCAD(small_budget(iterations=30, batch_size=8))
    model.fit(blobs(40, seed=0))
    between = model.score(blobs(6, seed=1))
    first = copy.deepcopy(model.tasks[0].state_dict())
    model.fit(stripes(40, seed=0))
    return model, first, between


def test_regions_follow_the_image():
    image = np.full((1, 64, 64), 0.2)
    image[:, 16:48, 16:48] = 0.8
    labels = regions(image, 8).reshape(8, 8)
    inside = np.zeros((8, 8), dtype=bool)
    inside[2:6, 2:6] = True
    assert len(set(labels[3:5, 3:5].flat)) == 1
    assert not set(labels[3:5, 3:5].flat) & set(labels[~inside].flat)
    assert labels.min() >= 1
    assert len(set(regions(np.zeros((3, 64, 64)), 8))) == 1  # nothing to see: one region


def test_the_loss_is_the_naive_sum_over_pairs():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 5, generator=generator)
    labels = torch.tensor([[1, 1, 1, 2, 2, 3], [1, 2, 2, 2, 2, 2]])
    same, other = [], []
    for f, region in zip(features, labels, strict=True):
        f = f - f.mean(dim=0)
        for p in range(6):
            for q in range(6):
                if p != q:
                    cosine = float(F.cosine_similarity(f[p], f[q], dim=0))
                    (same if region[p] == region[q] else other).append(cosine)
    expected = np.mean(other) - np.mean(same)
    assert float(structure_loss(features, labels)) == pytest.approx(expected, abs=1e-5)
    shifted = features + torch.randn(5, generator=generator)
    assert float(structure_loss(shifted, labels)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("teacher", ["efficientnet_lite0", "resnet18", "wide_resnet50_2", "vit"])
def test_prompts_move_what_comes_after_them(teacher):
    name = "vit_tiny_patch16_224" if teacher == "vit" else teacher
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build_teacher(name, "random")
    model = UCAD(small_budget())
    model.teacher, model.layers = built, prompted_layers(built)
    prompt = Prompt([torch.ones(c) for c in built.channels[:2]])
    image = blobs(1, seed=0)
    plain = extract(built, image, "cpu")
    with torch.no_grad():
        with model.prompted(prompt):
            assert all(torch.equal(a, b) for a, b in zip(plain, built(image), strict=True))
        prompt.shifts[0].normal_(generator=torch.Generator().manual_seed(0))
        with model.prompted(prompt):
            first = built(image)
        prompt.shifts[0].zero_()
        prompt.shifts[1].normal_(generator=torch.Generator().manual_seed(0))
        with model.prompted(prompt):
            second = built(image)
    for k in (1, 2):
        assert (first[k] - plain[k]).abs().max() > 1e-3
    assert torch.equal(second[0], plain[0])
    assert (second[2] - plain[2]).abs().max() > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(plain, built(image), strict=True))


def test_training_lowers_the_loss_of_held_out_normals(continual):
    model = continual[0]
    held_out = blobs(8, seed=3)
    labels = torch.from_numpy(np.stack([regions(i.numpy(), 8) for i in held_out]))
    plain = patch_features(extract(model.teacher, held_out, "cpu"))
    with torch.no_grad(), model.prompted(model.tasks[0].prompt):
        prompted = patch_features(extract(model.teacher, held_out, "cpu"))
    assert structure_loss(prompted, labels) < structure_loss(plain, labels) - 0.01


def test_keys_choose_the_task(continual):
    model = continual[0]
    images = torch.cat([blobs(4, seed=5), stripes(4, seed=5)])
    assert model.choose(images).tolist() == [0] * 4 + [1] * 4
    for task in model.tasks:
        assert task.key.shape == task.knowledge.shape == (MEMORY, sum(model.teacher.channels[1:]))


def test_a_further_task_leaves_the_first_as_it_was(continual):
    model, first, between = continual
    after = model.tasks[0].state_dict()
    assert first.keys() == after.keys()
    assert all(torch.equal(first[k], after[k]) for k in first)
    answer = model.score(blobs(6, seed=1))
    torch.testing.assert_close(answer.scores, between.scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answer.maps, between.maps, rtol=1e-4, atol=1e-4)


def test_planted_anomalies_score_higher(continual):
    images, labels = planted(10, seed=1)
    answer = continual[0].score(images)
    assert auroc(answer.scores.numpy(), labels) > 0.95
