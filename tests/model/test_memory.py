"""The memory of normals against loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from scrd.model.memory import NormalMemory

CHANNELS = (3, 4, 5)


def features(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, c, s, s, generator=generator)
        for c, s in zip(CHANNELS, (16, 8, 4), strict=True)
    ]


def test_a_position_is_described_by_unit_vectors_of_averages():
    _, fine, coarse = found = features()
    described = NormalMemory(CHANNELS, 3).describe(found)
    assert described.shape == (2, 9, 8, 8)
    torch.testing.assert_close(described.norm(dim=1), torch.ones(2, 8, 8))
    # a position in the corner and one inside, by hand
    for y, x in ((0, 0), (4, 5)):
        rows, columns = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
        expected = fine[1, :, rows, columns].mean(dim=(1, 2))
        ratio = described[1, :4, y, x] / expected
        torch.testing.assert_close(ratio, ratio[:1].expand(4))
    only_coarse = F.normalize(described[:, 4:], dim=1)
    flat = [found[0], fine, torch.ones_like(coarse)]
    constant = F.normalize(NormalMemory(CHANNELS, 3).describe(flat)[:, 4:], dim=1)
    assert not torch.allclose(only_coarse, constant)
    torch.testing.assert_close(constant, torch.full_like(constant, 1 / math.sqrt(5)))


def test_the_distance_is_that_to_the_nearest_prototype():
    memory = NormalMemory(CHANNELS, 6)
    memory.prototypes.copy_(F.normalize(torch.randn(6, 9), dim=1))
    found = features()
    distance = memory(found)
    assert distance.shape == (2, 8, 8) and distance.min() >= 0 and distance.max() <= 2
    described = memory.describe(found).numpy()
    for b, y, x in ((0, 0, 0), (1, 7, 3), (1, 2, 6)):
        cosines = [float(described[b, :, y, x] @ p) for p in memory.prototypes.numpy()]
        assert distance[b, y, x].item() == pytest.approx(1 - max(cosines), abs=1e-5)


def test_prototypes_are_the_directions_of_clusters():
    generator = torch.Generator().manual_seed(1)
    centres = F.normalize(torch.randn(4, 9, generator=generator), dim=1)
    noise = 0.05 * torch.randn(4, 200, 9, generator=generator)
    vectors = F.normalize(centres[:, None] + noise, dim=2).flatten(0, 1)
    memory = NormalMemory(CHANNELS, 40)
    memory.fit(vectors, torch.Generator().manual_seed(0))
    torch.testing.assert_close(memory.prototypes.norm(dim=1), torch.ones(40))
    nearest = (memory.prototypes @ centres.T).amax(dim=0)
    assert nearest.min() > 0.99
    within = 1 - (vectors @ memory.prototypes.T).amax(dim=1)
    assert within.mean() < 1 - (vectors @ centres.T).amax(dim=1).mean()  # finer than the clusters


def test_the_seed_decides_and_few_vectors_are_repeated():
    vectors = F.normalize(torch.randn(60, 9, generator=torch.Generator().manual_seed(2)), dim=1)
    found = []
    for seed in (0, 0):
        memory = NormalMemory(CHANNELS, 12)
        memory.fit(vectors, torch.Generator().manual_seed(seed))
        found.append(memory.prototypes)
    assert torch.equal(*found)
    assert len(found[0].unique(dim=0)) == 3  # one for twenty vectors
    assert torch.equal(found[0][:3], found[0][3:6])
    alone = NormalMemory(CHANNELS, 12)
    alone.fit(vectors[:1], torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone.prototypes, vectors[:1].expand(12, -1))
