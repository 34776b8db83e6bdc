"""The yardstick of the training benchmark does the same step as scrd, by other means."""

import copy

import numpy as np
import pytest
import torch

from scrd.config import Config
from scrd.model import build_model
from scrd.system.devices import make_fabric
from scrd.training.batches import batch_indices
from scrd.training.loop import train

pytest.importorskip("opensimplex")


@pytest.fixture(scope="module")
def yardstick(benchmark_module):
    return benchmark_module("yardstick")


def test_its_noise_stays_in_its_footprint_and_is_not_nothing(yardstick):
    image = torch.full((3, 128, 128), 0.5)
    perturbed, footprint = yardstick.add_noise(image, np.random.default_rng(0))
    changed = (perturbed != image).any(dim=0)
    assert not (changed & ~footprint[0]).any()
    assert changed.sum() > 0.9 * footprint.sum()
    assert 10 * 10 <= footprint.sum() <= 16 * 16


@pytest.mark.parametrize("objective", ["rd", "scrd"])
def test_its_steps_are_those_of_scrd(yardstick, monkeypatch, objective):
    torch.manual_seed(0)
    plain = build_model("efficientnet_lite0", None, False, 64, objective=objective)
    ours = copy.deepcopy(plain)
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(1))

    class Drawn:
        """Draws the batches of scrd."""

        step = -1

        def permutation(self, count):
            self.step += 1
            return batch_indices(self.step, 4, count, seed=0).numpy()

    monkeypatch.setattr(yardstick.np.random, "default_rng", lambda seed: Drawn())
    yardstick.train_plainly(plain, images, objective, 2, batch_size=4)
    config = Config(
        objective=objective,
        image_size=64,
        batch_size=4,
        iterations=2,
        learning_rate=1e-3,
        schedule="constant",
    )
    train(ours, images, config, fabric=make_fabric("32-true", "cpu"))
    theirs = dict(ours.named_buffers())
    for name, a in plain.named_buffers():
        b = theirs[name]
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda told: f"{name}: {told}")  # noqa: B023
