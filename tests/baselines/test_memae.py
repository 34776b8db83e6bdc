"""MemAE: a trained memory, read sparsely."""

import pytest
import torch
import torch.nn.functional as F

from scrd.baselines.memae import (
    ENTROPY_WEIGHT,
    MEMORY_SIZE,
    SHRINKAGE,
    MemAE,
    addressing_entropy,
    shrink,
)
from scrd.baselines.method import Budget

BUDGET = Budget(image_size=64, iterations=100, batch_size=16)


def normals(count, seed):
    """Vertical stripes of varying phase."""
    phase = 6.3 * torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    stripes = 0.5 + 0.3 * torch.sin(torch.arange(64) / 4 + phase)
    return stripes.expand(-1, 1, 64, 64).contiguous()


@pytest.fixture(scope="module")
def initial():
    return MemAE(BUDGET)


@pytest.fixture(scope="module")
def fitted():
    model = MemAE(BUDGET)
    model.fit(normals(48, seed=0))
    return model


def test_shrinkage_is_the_papers_formula():
    weights = torch.rand(6, 50, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    for threshold in (1 / 50, 1.2 / 50):
        expected = torch.zeros_like(weights)
        for row in range(6):
            for i in range(50):
                w = float(weights[row, i])
                expected[row, i] = max(w - threshold, 0) * w / (abs(w - threshold) + 1e-12)
            expected[row] /= expected[row].sum()
        assert torch.allclose(shrink(weights, threshold), expected, atol=1e-6)
        assert ((expected == 0) == (weights <= threshold)).all() and (expected == 0).any()


def test_the_threshold_lies_in_the_papers_interval():
    assert 1 / MEMORY_SIZE <= SHRINKAGE <= 3 / MEMORY_SIZE


def test_addressing_is_a_sparse_distribution(initial, fitted):
    query = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    for model in (initial, fitted):
        with torch.no_grad():
            weights = model.memory.address(query)
        assert weights.shape == (40, MEMORY_SIZE)
        assert (weights >= 0).all()
        assert torch.allclose(weights.sum(dim=-1), torch.ones(40), atol=1e-5)
        assert ((weights == 0).float().mean(dim=-1) > 0.3).all()


def test_addressing_follows_the_cosine(initial):
    memory = initial.memory
    query = 7 * memory.items[3:4].detach()
    with torch.no_grad():
        weights = memory.address(query)[0]
    cosine = F.cosine_similarity(query, memory.items.detach(), dim=-1)
    assert weights.argmax() == 3
    kept = weights > 0
    assert cosine[kept].min() > cosine[~kept].max()
    # among kept items softmax ratios remain: log-weights differ as the cosines do
    difference = weights[kept].log() - cosine[kept]
    assert torch.allclose(difference, difference[:1].expand_as(difference), atol=1e-4)


def test_the_memory_is_read_per_position(initial):
    latent = torch.randn(2, 64, 3, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        read, weights = initial.memory(latent)
        one = initial.memory.address(latent[1, :, 2, 4]) @ initial.memory.items
    assert read.shape == latent.shape and weights.shape == (2, 3, 5, MEMORY_SIZE)
    assert torch.allclose(read[1, :, 2, 4], one, atol=1e-6)


def test_the_memory_is_trained(initial, fitted):
    model = MemAE(BUDGET).train()
    model.loss(normals(4, seed=1).expand(-1, 3, -1, -1)).backward()
    assert model.memory.items.grad.abs().sum() > 0
    moved = (fitted.memory.items - initial.memory.items).norm(dim=1)
    assert (moved > 0.01 * initial.memory.items.norm(dim=1)).float().mean() > 0.5


def test_decoding_sees_nothing_but_the_memory(fitted):
    image = normals(1, seed=3).expand(-1, 3, -1, -1)
    with torch.no_grad():
        weights = fitted.reconstruct(image)[1]
        read = (weights @ fitted.memory.items).permute(0, 3, 1, 2)
        assert torch.allclose(fitted.decoder(read), fitted.reconstruct(image)[0], atol=1e-5)


def test_the_loss_adds_the_weighted_entropy(fitted):
    image = normals(4, seed=4).expand(-1, 3, -1, -1)
    with torch.no_grad():
        reconstruction, weights = fitted.reconstruct(image)
        entropy = torch.distributions.Categorical(probs=weights).entropy().mean()
        assert torch.allclose(addressing_entropy(weights), entropy, rtol=1e-3)
        expected = (reconstruction - image).square().mean() + ENTROPY_WEIGHT * entropy
        assert torch.allclose(fitted.loss(image), expected, rtol=1e-4)


def test_a_planted_square_is_found(fitted):
    images = normals(16, seed=5)
    planted = images.clone()
    planted[:, :, 8:24, 36:52] = 0.5
    normal, abnormal = fitted.score(images), fitted.score(planted)
    assert abnormal.scores.min() > normal.scores.max()
    gain = abnormal.maps - normal.maps
    assert gain[:, 8:24, 36:52].mean() > 10 * gain[:, 40:].mean().abs()
