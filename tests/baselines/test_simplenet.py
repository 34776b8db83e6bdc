import numpy as np
import pytest
import torch
from planted import blobs, planted, small_budget

from scrd.baselines.simplenet import FEATURE_STD, MARGIN, NOISE, SimpleNet, truncated_l1
from scrd.metrics.ranks import auroc


@pytest.fixture(scope="module")
def trained():
    model = SimpleNet(small_budget(iterations=200, batch_size=16))
    model.fit(blobs(40, seed=0))
    return model


def test_loss_is_the_naive_sum():
    rng = np.random.default_rng(0)
    normal, noisy = rng.normal(size=(2, 50))
    expected = np.mean(
        [max(0.0, 0.5 - a) + max(0.0, 0.5 + b) for a, b in zip(normal, noisy, strict=True)]
    )
    assert float(truncated_l1(torch.tensor(normal), torch.tensor(noisy))) == pytest.approx(expected)


def test_loss_stops_at_the_margin():
    normal = torch.tensor([MARGIN, 2.0], requires_grad=True)
    noisy = torch.tensor([-MARGIN, -2.0], requires_grad=True)
    assert truncated_l1(normal, noisy) == 0


def separation(model, images):
    """Mean D on clean features minus mean D on noisy ones, and the share of images it drops in."""
    with torch.no_grad():
        adapted = model.adaptor(model._embed(images))
        generator = torch.Generator().manual_seed(5)
        noise = torch.empty_like(adapted).normal_(0, NOISE, generator=generator)
        normality = model.discriminator(torch.cat([adapted, adapted + noise]).flatten(0, 1))
        clean, noisy = normality.view(2, len(images), -1).mean(dim=2)
    return float((clean - noisy).mean()), float((clean > noisy).float().mean())


def test_noise_lowers_the_normality_of_held_out_features(trained):
    held_out = blobs(20, seed=1)
    drop, share = separation(trained, held_out)
    assert drop > MARGIN
    assert share == 1
    assert abs(separation(SimpleNet(small_budget()).eval(), held_out)[0]) < 0.05


def test_features_have_the_stated_spread(trained):
    spread = trained._embed(blobs(20, seed=1)).var(dim=(0, 1)).mean().sqrt()
    assert float(spread) == pytest.approx(FEATURE_STD, rel=0.1)


def test_planted_anomalies_score_higher_and_most_around_their_place(trained):
    images, labels = planted(10, seed=1)
    answer = trained.score(images)
    assert auroc(answer.scores.numpy(), labels) > 0.95
    # at 64 pixels the teacher's deepest receptive field is the whole image, so all of it rises
    change = (answer.maps[10:] - trained.score(blobs(20, seed=1)[10:]).maps).mean(dim=0)
    assert change[8:32, 30:54].mean() > 1.4 * change[32:56, 10:34].mean() > 0
