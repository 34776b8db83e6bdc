import math

import pytest
import torch
from planted import blobs, planted, small_budget
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from scrd.baselines import rdpp
from scrd.baselines.rdpp import RDPP, entropic_transport, projection_loss, transport_loss
from scrd.metrics.ranks import auroc
from scrd.objectives.distance import flat_distance
from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation


def clouds(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def test_transport_tends_to_the_best_assignment():
    a, b = clouds(3, 12, 2), clouds(3, 12, 2, seed=1)
    cheapest = []
    for x, y in zip(a, b, strict=True):
        cost = cdist(x, y, "sqeuclidean") / 2
        cheapest.append(cost[linear_sum_assignment(cost)].mean())
    # ε (log N) bounds what the entropy adds
    found = entropic_transport(a, b, entropy=1e-4, rounds=5000)
    assert_close(found, torch.tensor(cheapest, dtype=torch.float64), rtol=0, atol=3e-4)


def test_transport_is_the_dual_optimum_of_a_naive_loop():
    x, y = clouds(7, 3), clouds(5, 3, seed=1)
    entropy = 0.1
    kernel = torch.exp(-torch.from_numpy(cdist(x, y, "sqeuclidean")) / 2 / entropy)
    u, v = torch.ones(7, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    for _ in range(500):
        u = 1 / (kernel @ (v / 5))
        v = 1 / (kernel.T @ (u / 7))
    expected = entropy * (u.log().mean() + v.log().mean())
    found = entropic_transport(x[None], y[None], entropy, rounds=500)
    assert_close(found[0], expected)


def test_the_gradient_of_transport_is_that_of_its_value():
    a, b = clouds(1, 3, 2).requires_grad_(), clouds(1, 4, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: entropic_transport(x, y, 0.1, 200), (a, b))


def test_transport_loss_sees_what_is_there_and_not_where():
    one = clouds(1, 6, 4, 4).float()
    turned = torch.cat([one, one.flip(2), one.transpose(2, 3)])
    everywhere = torch.arange(16)
    assert transport_loss(turned, everywhere) == pytest.approx(0, abs=1e-5)
    apart = clouds(3, 6, 4, 4).float() * torch.tensor([0.2, 1.0, 3.0]).view(3, 1, 1, 1)
    assert transport_loss(apart, everywhere) > 0.1


def test_projection_loss_is_the_weighted_sum_of_its_parts():
    noisy, clean, cleaned = (clouds(2, 4, 3, 3, seed=s).float() - 0.3 for s in range(3))
    positions = torch.tensor([0, 4, 8])
    transport = transport_loss(clean, positions)
    parts = []
    for z, p, q in zip(noisy.flatten(1), clean.flatten(1), cleaned.flatten(1), strict=True):
        reconstruction = 1 - float(p @ q) / math.sqrt(float(p @ p) * float(q @ q))
        contrast = max(0.0, float(z @ p) / math.sqrt(float(z @ z) * float(p @ p)) - 0.5)
        parts.append((0.01 * reconstruction + 0.1 * contrast) / 1.11)
    expected = rdpp.TRANSPORT_WEIGHT * float(transport) / 1.11 + sum(parts) / len(parts)
    two_scales = projection_loss([noisy] * 2, [clean] * 2, [cleaned] * 2, [positions] * 2)
    assert float(two_scales) == pytest.approx(2 * expected, rel=1e-4)


@pytest.fixture(scope="module")
def trained():
    model = RDPP(small_budget(iterations=35, batch_size=8))
    model.fit(blobs(48, seed=0))
    return model


@torch.no_grad()
def noise_left(model):
    """Distance of noisy images to their clean selves, relative to that between clean images.

    Held-out images, and noise that training did not draw.

    Returns:
        One figure a scale, for the teacher's features and for the projected ones.
    """
    image = blobs(24, seed=7, channels=3)
    drawn = sample_perturbation(24, (64, 64), rdpp.NOISE, torch.Generator().manual_seed(77))
    perturbed, _ = apply_perturbation(image, drawn, rdpp.NOISE)
    clean, noisy = model.teacher(image), model.teacher(perturbed)

    def relative(u, z):
        among = [flat_distance(a, a.roll(1, 0)).mean() for a in u]
        away = [flat_distance(a, b).mean() for a, b in zip(u, z, strict=True)]
        return [float(d / n) for d, n in zip(away, among, strict=True)]

    return relative(clean, noisy), relative(model.project(clean), model.project(noisy))


def test_training_takes_noise_out_of_the_projected_features(trained):
    raw, projected = noise_left(trained)
    _, untrained = noise_left(RDPP(small_budget()).eval())
    assert sum(projected) < 0.7 * sum(raw)
    assert sum(projected) < 0.7 * sum(untrained)
    assert projected[2] < 0.5 * raw[2]


def test_reconstruction_takes_noise_out_at_every_scale(monkeypatch):
    # at the method's own weights the distillation loss does most of it, and none at the finest
    monkeypatch.setattr(rdpp, "RECONSTRUCTION_WEIGHT", 1.0)
    model = RDPP(small_budget(iterations=35, batch_size=8))
    model.fit(blobs(48, seed=0))
    raw, projected = noise_left(model)
    assert all(p < 0.8 * r for p, r in zip(projected, raw, strict=True))


def test_finds_planted_anomalies_and_where_they_are(trained):
    images, labels = planted(10, seed=1)
    answer = trained.score(images)
    assert auroc(answer.scores.numpy(), labels) == 1
    assert answer.maps.flatten(1).amax(dim=1).equal(answer.scores)
    peaks = answer.maps[10:].flatten(1).argmax(dim=1)
    assert ((peaks // 64 - 20).abs() < 12).all()
    assert ((peaks % 64 - 42).abs() < 12).all()
