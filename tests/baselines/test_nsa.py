"""NSA: synthetic anomalies of other images, and a network that finds them."""

import numpy as np
import pytest
import torch
from planted import blobs, small_budget

from scrd.baselines import nsa
from scrd.baselines.nsa import NSA, soft_label, synthesize
from scrd.metrics.ranks import auroc


def generator(seed):
    return torch.Generator().manual_seed(seed)


def pairs(count, channels=1):
    return blobs(count, 0, channels), blobs(count, 1, channels)


def test_patches_change_an_image_where_the_label_says_so():
    changes = 0
    for seed, (image, source) in enumerate(zip(*pairs(20, channels=3), strict=True)):
        copy = image.clone()
        changed, label = synthesize(image, source, generator(seed))
        assert torch.equal(image, copy)
        assert changed.min() >= 0 and changed.max() <= 1
        assert label.shape == (64, 64) and label.min() >= 0 and label.max() <= 1
        difference = (changed - image).abs().mean(dim=0)
        # a median filter of three pixels moves the mask by one pixel at most
        near = torch.nn.functional.max_pool2d(difference[None], 3, 1, 1)[0]
        assert (near[label > 0] > nsa.TOLERANCE).all()
        changes += bool(label.max() > 0.5)
        again = synthesize(image, source, generator(seed))
        assert torch.equal(again[0], changed) and torch.equal(again[1], label)
    assert changes > 15


def test_a_patch_leaves_no_seam(monkeypatch):
    """A source that differs by a constant blends in as if nothing had happened."""
    monkeypatch.setattr(nsa, "WIDTH_BOUNDS", (0.3, 0.5))
    ramp = torch.linspace(0.2, 0.6, 64).expand(1, 64, 64).contiguous()
    level = torch.full((1, 64, 64), 0.9)
    changed, _ = synthesize(level, level - 0.5, generator(0))
    assert torch.allclose(changed, level, atol=1e-5)
    changed, label = synthesize(ramp, level, generator(0))
    assert torch.allclose(changed, ramp, atol=1e-5)  # harmonic inside, so it is the ramp again
    assert label.max() == 0


def test_no_patch_of_background():
    image, source = blobs(1, 0)[0], torch.zeros(1, 64, 64)
    changed, label = synthesize(image, source, generator(0))
    assert torch.equal(changed, image) and label.max() == 0


def test_labels_are_the_logistic_of_the_difference():
    image = torch.full((3, 256, 256), 0.5)
    changed = image.clone()
    changed[:, 40:100, 40:100] += torch.tensor([3.0, 6.0, 9.0])[:, None, None] / 255
    changed[:, 150:220, 150:220] -= 0.5 / 255
    label = soft_label(image, changed)
    assert label[70, 70] == pytest.approx(1 / (1 + np.exp(-0.5 * (6 - 4))), abs=1e-4)
    assert label[185, 185] == 0 and label[5, 5] == 0


def test_the_score_is_the_mean_of_a_map_of_probabilities():
    model = NSA(small_budget()).eval()
    answer = model.score(blobs(2, 0))
    assert answer.maps.min() > 0 and answer.maps.max() < 1
    assert torch.allclose(answer.scores, answer.maps.mean(dim=(1, 2)))


def stripes(count, seed):
    """Vertical stripes of varying phase: a patch from elsewhere breaks them."""
    phase = 6.3 * torch.rand(count, 1, 1, 1, generator=generator(seed))
    return (0.5 + 0.3 * torch.sin(torch.arange(64) / 4 + phase)).repeat(1, 1, 64, 1)


def test_training_finds_blended_patches_of_new_images():
    pairs = zip(stripes(20, seed=3), stripes(20, seed=4), strict=True)
    made = [synthesize(*pair, generator(k)) for k, pair in enumerate(pairs)]
    changed, labels = (torch.stack(parts) for parts in zip(*made, strict=True))
    hard = (labels > 0.5).flatten().int().tolist()
    found = {}
    for iterations in (0, 80):  # far fewer than it takes, and enough to be better than nothing
        model = NSA(small_budget(iterations=iterations, batch_size=8))
        model.fit(stripes(40, seed=2))
        found[iterations] = auroc(model.score(changed).maps.flatten().numpy(), hard)
    assert found[80] > found[0] + 0.05
