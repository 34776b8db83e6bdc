"""AE and AE-U: the second knows which pixels cannot be predicted, the first blames them."""

import pytest
import torch
import torch.nn.functional as F

from scrd.baselines.autoencoder import VARIANCE_FLOOR, Autoencoder, UncertaintyAutoencoder
from scrd.baselines.method import Budget

BUDGET = Budget(image_size=64, iterations=170, batch_size=8)
CLASSES = (Autoencoder, UncertaintyAutoencoder)
ROWS, COLUMNS = slice(40, 56), slice(8, 24)


def normals(count, seed):
    """Ramps of varying direction with faint noise, and strong noise in one square."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.rand(count, 1, 1, 1, generator=generator)
    ramp = torch.linspace(0.3, 0.7, 64).expand(64, 64)
    strength = torch.full((64, 64), 0.08)
    strength[ROWS, COLUMNS] = 0.4
    noise = 2 * torch.rand(count, 1, 64, 64, generator=generator) - 1
    return (slope * ramp + (1 - slope) * ramp.T + strength * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def fitted():
    models = {}
    for cls in CLASSES:
        models[cls] = cls(BUDGET)
        models[cls].learning_rate = 3e-3  # the variance starts at 1 and has few steps to get down
        models[cls].fit(normals(BUDGET.iterations * BUDGET.batch_size, seed=0))
    return models


def ratio(maps):
    """Mean inside the noisy square over mean elsewhere."""
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[ROWS, COLUMNS] = True
    return float(maps[:, inside].mean() / maps[:, ~inside].mean())


def test_noise_is_forgiven_by_the_predicted_variance(fitted):
    images = normals(32, seed=1)
    uncertain = fitted[UncertaintyAutoencoder]
    with torch.no_grad():
        _, variance = uncertain.predict(images.expand(-1, 3, -1, -1))
    assert ratio(variance.mean(dim=1)) > 5
    assert ratio(uncertain.score(images).maps) < 2
    assert ratio(fitted[Autoencoder].score(images).maps) > 6


def test_the_loss_of_the_uncertain_one_is_the_gaussian_likelihood(fitted):
    model, image = fitted[UncertaintyAutoencoder], normals(4, seed=2).expand(-1, 3, -1, -1)
    with torch.no_grad():
        mean, variance = model.predict(image)
        expected = 2 * F.gaussian_nll_loss(mean, image, variance, eps=VARIANCE_FLOOR)
        assert torch.allclose(model.loss(image), expected, atol=1e-5)
    assert (variance >= VARIANCE_FLOOR).all()


def test_the_error_of_the_plain_one_is_the_mean_square(fitted):
    model, image = fitted[Autoencoder], normals(4, seed=2).expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = F.mse_loss(model.network(image), image)
        assert torch.allclose(model.loss(image), expected)
    assert torch.allclose(model.score(image).scores.mean(), expected)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_planted_square_is_found(fitted, cls):
    images = normals(16, seed=3)
    planted = images.clone()
    planted[:, :, 8:24, 36:52] += 0.5
    normal, abnormal = fitted[cls].score(images), fitted[cls].score(planted)
    assert abnormal.scores.min() > normal.scores.max()
    gain = abnormal.maps - normal.maps
    assert gain[:, 8:24, 36:52].mean() > 10 * gain[:, 32:].mean().abs()


@pytest.mark.parametrize("size", [32, 96, 128, 160])
def test_any_multiple_of_32_is_reconstructed_at_its_size(size):
    model = Autoencoder(Budget(image_size=size)).eval()
    assert model.score(torch.zeros(1, 1, size, size)).maps.shape == (1, size, size)
    linear = [m for m in model.network if isinstance(m, torch.nn.Linear)]
    assert min(m.out_features for m in linear) == 16
    assert linear[0].in_features <= 64 * 5 * 5
