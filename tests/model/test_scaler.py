"""Standardised features against numpy."""

import numpy as np
import pytest
import torch

from scrd.model import build_model
from scrd.model.scaler import EPSILON, FeatureScaler

CHANNELS, SIDES = (3, 5, 2), (8, 4, 2)


def features(counts, seed=0):
    """Batches of feature maps whose channels differ in level and spread."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for n in counts:
        maps = [
            torch.randn(n, c, s, s, generator=generator)
            for c, s in zip(CHANNELS, SIDES, strict=True)
        ]
        batches.append([(1 + torch.arange(m.shape[1]).view(-1, 1, 1)) * (m + 3) for m in maps])
    return batches


def test_it_is_the_identity_until_it_is_fitted():
    (maps,) = features((4,))
    for a, b in zip(FeatureScaler(CHANNELS)(maps), maps, strict=True):
        assert torch.equal(a, b)


def test_mean_and_spread_are_numpys_over_images_and_positions():
    batches = features((4, 1, 7))  # of unequal sizes
    scaler = FeatureScaler(CHANNELS)
    scaler.fit(iter(batches))
    new = features((3,), seed=1)[0]
    scaled = scaler(new)
    for k in range(3):
        together = np.concatenate([batch[k].double().numpy() for batch in batches])
        mean, std = together.mean(axis=(0, 2, 3)), together.std(axis=(0, 2, 3)) + EPSILON
        np.testing.assert_allclose(scaler.get_buffer(f"mean{k}").flatten(), mean, rtol=1e-5)
        np.testing.assert_allclose(scaler.get_buffer(f"std{k}").flatten(), std, rtol=1e-5)
        expected = (new[k].numpy() - mean[:, None, None]) / std[:, None, None]
        np.testing.assert_allclose(scaled[k], expected, rtol=1e-3, atol=1e-5)
        assert std.max() > 1.5 * std.min()


def test_what_trained_it_has_mean_zero_and_spread_one():
    batches = features((16, 16))
    scaler = FeatureScaler(CHANNELS)
    scaler.fit(batches)
    scales = zip(*(scaler(batch) for batch in batches), strict=True)
    for u in map(torch.cat, scales):
        assert u.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        torch.testing.assert_close(
            u.std(dim=(0, 2, 3), correction=0), torch.ones(u.shape[1]), atol=1e-3, rtol=0
        )


def test_a_channel_that_never_moves_stays_at_zero():
    (maps,) = features((4,))
    maps[0][:, 1] = 7.25
    scaler = FeatureScaler(CHANNELS)
    scaler.fit([maps])
    assert scaler(maps)[0][:, 1].abs().max() == 0
    assert all(torch.isfinite(u).all() for u in scaler(maps))


def test_a_large_level_does_not_swallow_the_spread():
    (maps,) = features((8,))
    shifted = [u.double() + 1e4 for u in maps]
    scaler = FeatureScaler(CHANNELS)
    scaler.fit([shifted])
    for k, u in enumerate(shifted):
        expected = u.numpy().std(axis=(0, 2, 3)) + EPSILON
        np.testing.assert_allclose(scaler.get_buffer(f"std{k}").flatten(), expected, rtol=1e-4)


def test_the_network_encodes_with_it_and_keeps_it():
    def model():
        with pytest.warns(UserWarning, match="RANDOM"):
            return build_model("resnet18", "random", False, 64).eval()

    torch.manual_seed(0)
    first, second = model(), model()
    images = torch.rand(4, 3, 64, 64)
    for a, b in zip(first.encode(images), first.teacher(images), strict=True):
        assert torch.equal(a, b)
    first.scaler.fit([first.teacher(images)])
    encoded = first.encode(images)
    for k, (a, u) in enumerate(zip(encoded, first.teacher(images), strict=True)):
        mean, std = first.scaler.get_buffer(f"mean{k}"), first.scaler.get_buffer(f"std{k}")
        torch.testing.assert_close(a, (u - mean) / std)
        assert (a < 0).any() and not (u < 0).any()
    assert all((v < 0).any() for v in first.reconstruct(encoded).student)
    second.load_state_dict(first.state_dict())
    for a, b in zip(second.encode(images), encoded, strict=True):
        assert torch.equal(a, b)
