"""The training step as one writes it down from the paper: what scrd's own is measured against.

Both images pass teacher, bottleneck and student, as in the authors' released code, whose loss
needs of the noisy pass no more than the teacher's features. fp32, contiguous NCHW, the noise made
image by image and octave by octave on the CPU with the PyPI package `opensimplex`, plain Adam, and
the loss fetched each step. The network, the objective and the lesions of `scrd` are scrd's, so that
the two do the same work; the teacher keeps the BatchNorm that scrd folds into its convolutions.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.model import SCRD
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.synthesis.lesions import apply_lesions, sample_lesions
from scrd.training.batches import generator_of

OCTAVES, PERSISTENCE, STRENGTH, WAVELENGTH = 6, 0.6, 0.2, 32


def simplex_patch(height: int, width: int, seed: int) -> np.ndarray:
    """Fractal simplex noise, (3, height, width), float64."""
    from opensimplex import OpenSimplex  # of no use to objectives without this noise

    noise = OpenSimplex(seed)
    field = np.zeros((3, height, width))
    for octave in range(OCTAVES):
        axes = (np.arange(n) / (WAVELENGTH / 2**octave) for n in (width, height, 3))
        field += PERSISTENCE**octave * noise.noise3array(*axes)
    return field


def add_noise(image: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Algorithm 1 on one image.

    Args:
        image: (3, S, S), float32, in [0, 1].
        generator: draws size, place and seed of the patch.

    Returns:
        The perturbed image, and its footprint (1, S, S), bool.
    """
    side = image.shape[-1]
    height, width = generator.integers(10, side // 8 + 1, size=2)
    top, left = generator.integers(0, side - height + 1), generator.integers(0, side - width + 1)
    patch = simplex_patch(height, width, int(generator.integers(2**31)))
    perturbed = image.clone()
    rows, columns = slice(top, top + height), slice(left, left + width)
    perturbed[:, rows, columns] += STRENGTH * torch.from_numpy(patch).to(image)
    footprint = torch.zeros(1, side, side, dtype=torch.bool)
    footprint[:, rows, columns] = True
    return perturbed, footprint


def _synchronize(image: Tensor) -> None:
    if image.is_cuda:
        torch.cuda.synchronize()


def train_plainly(
    model: SCRD, images: Tensor, objective: str, steps: int, batch_size: int = 16
) -> tuple[float, float]:
    """Train for some steps.

    Args:
        model: the network, on any device.
        images: (N, C, S, S), float32, in [0, 1], on the same.
        objective: a name in :data:`scrd.objectives.OBJECTIVES`. For one that is not contrastive
            there is no noisy image.
        steps: how many.
        batch_size: images of a step.

    Returns:
        Seconds a step without the noise, and of the noise alone.
    """
    chosen = OBJECTIVES[objective]
    parameters = [p for part in model.trained_parts() for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.999))
    generator = np.random.default_rng(0)
    model.train()
    noise_seconds = 0.0
    started = time.perf_counter()
    for step in range(steps):
        image = images[generator.permutation(len(images))[:batch_size]].expand(-1, 3, -1, -1)
        image = image.contiguous()
        noisy, footprint = (), None
        if chosen.lesions:
            before = time.perf_counter()
            lesions = sample_lesions(batch_size, generator_of(0, 2, step))[::2]
            _synchronize(image)
            noise_seconds += time.perf_counter() - before
            noisy_image, footprint = image.clone(), torch.zeros_like(image[:, :1])
            grey = image[::2, : images.shape[1]]
            noisy_image[::2], footprint[::2] = apply_lesions(grey, lesions)
            noisy = model.encode(noisy_image)
        elif chosen.contrastive:
            before = time.perf_counter()
            perturbed, footprints = zip(*(add_noise(x, generator) for x in image), strict=True)
            noisy_image, footprint = torch.stack(perturbed), torch.stack(footprints)
            _synchronize(image)
            noise_seconds += time.perf_counter() - before
            noisy = model.encode(noisy_image)
        clean = model.encode(image)
        if chosen.lesions:
            _, scale_weights, logits = model.reconstruct(clean, noisy)
            covered = F.avg_pool2d(footprint, 8)[:, 0]
            features = StepFeatures(clean, (), noisy, scale_weights, None, logits, covered)
        else:
            student, scale_weights, _ = model.reconstruct(clean)
            if chosen.contrastive:
                model.reconstruct(noisy)
            features = StepFeatures(clean, student, noisy, scale_weights, footprint)
        loss = chosen.function(features).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    elapsed = time.perf_counter() - started
    return (elapsed - noise_seconds) / steps, noise_seconds / steps
