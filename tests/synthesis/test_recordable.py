"""Lesions and noise on a GPU that is not there: nothing waits for values or for the host."""

import pytest
import torch

from fake_gpu import Recording, fake_gpu
from scrd.synthesis.lesions import apply_lesions, sample_lesions
from scrd.synthesis.perturbation import apply_perturbation, sample_perturbation
from scrd.synthesis.settings import NoiseSettings

SIZE = 64


@pytest.mark.parametrize("channels", [1, 3])
def test_lesions(channels):
    generator = torch.Generator().manual_seed(0)
    with fake_gpu() as gpu:
        lesions = sample_lesions(3, generator).to(gpu)
        image = torch.zeros(3, channels, SIZE, SIZE, device=gpu)
        with Recording():
            changed, where = apply_lesions(image, lesions)
    assert changed.shape == image.shape and where.shape == (3, 1, SIZE, SIZE)


def test_gaussian_noise():
    settings = NoiseSettings(kind="gaussian")
    with fake_gpu() as gpu:
        drawn = sample_perturbation(3, (SIZE * 2,) * 2, settings, torch.Generator()).to(gpu)
        image = torch.zeros(3, 3, SIZE * 2, SIZE * 2, device=gpu)
        with Recording():
            changed, where = apply_perturbation(image, drawn, settings)
    assert changed.shape == image.shape and where.shape == (3, 1, SIZE * 2, SIZE * 2)
