"""Tiny images for tests of baselines, and what every one of them must keep to."""

import numpy as np
import torch
from torch.testing import assert_close

from scrd.baselines.method import Budget


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


def check_contract(method, *, maps, rtol=1e-3, atol=1e-4):
    """Seeded, global random state and inputs untouched, batch mates without influence, shapes."""
    train = blobs(8, seed=0)
    test = torch.cat([blobs(3, seed=1), torch.full((1, 1, 64, 64), 0.5)])
    before, copy = torch.get_rng_state(), train.clone()
    model = method(small_budget())
    model.fit(train)
    answer = model.score(test)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(train, copy)

    assert answer.scores.shape == (4,)
    assert answer.scores.dtype == torch.float32
    assert torch.isfinite(answer.scores).all()
    assert not answer.scores.requires_grad
    assert answer.scores.unique().numel() == 4
    assert (answer.maps is not None) == maps
    if maps:
        assert answer.maps.shape == (4, 64, 64)
        assert answer.maps.dtype == torch.float32
        assert torch.isfinite(answer.maps).all()

    torch.rand(3)  # another state of the global generator must not matter
    again = method(small_budget())
    again.fit(train)
    assert torch.equal(again.score(test).scores, answer.scores)

    # with mates of quite another kind, so that statistics of the batch would show
    mates = torch.cat([test[:1], torch.rand(5, 1, 64, 64, generator=torch.Generator())])
    mixed = model.score(mates)
    assert_close(mixed.scores[:1], answer.scores[:1], rtol=rtol, atol=atol)
    if maps:
        assert_close(mixed.maps[:1], answer.maps[:1], rtol=rtol, atol=atol)
    rgb = method(small_budget())
    rgb.fit(train.expand(-1, 3, -1, -1))
    assert_close(rgb.score(test.expand(-1, 3, -1, -1)).scores, answer.scores, rtol=1e-2, atol=1e-3)
