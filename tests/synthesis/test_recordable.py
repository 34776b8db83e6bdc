"""Lesions and noise on a GPU that is not there: nothing waits for values or for the host."""

import pytest
import torch

from fake_gpu import Recording, fake_gpu, there
from scrd.synthesis.lesions import apply_lesions, sample_lesions
from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation
from scrd.synthesis.settings import NoiseSettings

SIZE = 64


@pytest.mark.parametrize("channels", [1, 3])
def test_lesions(channels):
    drawn = sample_lesions(3, torch.Generator())
    with fake_gpu() as gpu:
        lesions = drawn.each(there)
        image = torch.zeros(3, channels, SIZE, SIZE, device=gpu)
        with Recording():
            changed, where = apply_lesions(image, lesions)
    assert changed.shape == image.shape and where.shape == (3, 1, SIZE, SIZE)


def test_gaussian_noise():
    settings = NoiseSettings(kind="gaussian")
    drawn = sample_perturbation(3, (SIZE * 2,) * 2, settings, torch.Generator())
    with fake_gpu() as gpu:
        drawn = drawn.each(there)
        image = torch.zeros(3, 3, SIZE * 2, SIZE * 2, device=gpu)
        with Recording():
            changed, where = apply_perturbation(image, drawn, settings)
    assert changed.shape == image.shape and where.shape == (3, 1, SIZE * 2, SIZE * 2)
