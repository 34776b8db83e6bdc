"""Tiny images for tests of baselines."""

import numpy as np
import torch

from scrd.baselines.method import Budget
from scrd.metrics.ranks import auroc


def small_budget(**changes):
    return Budget(**{"image_size": 64, "iterations": 3, "batch_size": 4, "seed": 0, **changes})


def blobs(count, seed, channels=1, size=64):
    """Smooth dark images with one bright disc near the middle: (count, channels, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    images = []
    for _ in range(count):
        cy, cx = rng.uniform(0.42, 0.58, 2)
        radius = rng.uniform(0.2, 0.3)
        disc = 1 / (1 + np.exp((np.hypot(y - cy, x - cx) - radius) * 40))
        images.append(0.1 + 0.5 * disc + rng.normal(0, 0.02, (channels, size, size)))
    return torch.from_numpy(np.clip(images, 0, 1)).float()


def planted(count, seed, where=(12, 34), side=16):
    """``count`` normals, then as many with a chequered square at ``where``; and their labels."""
    images = blobs(2 * count, seed)
    y, x = where
    square = (torch.arange(side)[:, None] // 3 + torch.arange(side) // 3) % 2
    images[count:, :, y : y + side, x : x + side] = square.float()
    return images, [0] * count + [1] * count


def assert_finds_planted(method):
    """Fit a baseline, and assert that scores and maxima of maps find the squares; its answer."""
    method.fit(blobs(40, seed=0))
    images, labels = planted(10, seed=1)
    answer = method.score(images)
    assert auroc(answer.scores.numpy(), labels) > 0.95
    peaks = answer.maps[10:].flatten(1).argmax(dim=1)
    rows, columns = peaks // 64, peaks % 64
    assert ((rows >= 8) & (rows < 32) & (columns >= 30) & (columns < 54)).all()
    return answer
