"""The teacher's features of a training step: of the images, kept, and of the perturbed images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scrd.config import Config
from scrd.model import SCRD
from scrd.synthesis.lesions import apply_lesions, sample_lesions
from scrd.synthesis.perturbation import Perturbation, apply_perturbation, sample_perturbation


def cached_features(
    model: SCRD, images: Tensor, device: torch.device, limit: float
) -> list[Tensor] | None:
    """Teacher features of a whole set.

    They lie on the device: to fetch them for each step from the host would take a GPU longer than
    to compute them again. There they may take half of the memory that is free.

    Args:
        model: the network, on the device.
        images: (N, C, S, S), float32, in [0, 1], on the CPU.
        device: where the features are kept.
        limit: GiB that they may take.

    Returns:
        u_k, (N, C_k, H_k, W_k) each, or None if they would exceed the limit.
    """
    budget = limit * 2**30
    if device.type == "cuda":
        budget = min(budget, torch.cuda.mem_get_info(device)[0] / 2)
    probe = model.encode(images[:1].to(device))
    if sum(f.numel() * f.element_size() for f in probe) * len(images) > budget:
        return None
    cache = [f.new_empty(len(images), *f.shape[1:]) for f in probe]
    for i in range(0, len(images), 32):
        for whole, part in zip(cache, model.encode(images[i : i + 32].to(device)), strict=True):
            whole[i : i + 32] = part
    return cache


def noisy_features(
    model: SCRD, image: Tensor, config: Config, generator: torch.Generator, share: slice
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Teacher features of images that are perturbed afresh.

    Args:
        model: the network.
        image: (B, C, S, S), float32, in [0, 1], on the model's device.
        config: ``batch_size`` and ``noise`` are used.
        generator: of the CPU. The noise is drawn for the batch of all processes, so that an
            image's does not depend on their number.
        share: which part of that batch ``image`` is.

    Returns:
        z_k, (B, C_k, H_k, W_k) each, and the footprint of the noise, (B, 1, S, S), bool.
    """
    size = (image.shape[2], image.shape[3])
    drawn = sample_perturbation(config.batch_size, size, config.noise, generator)
    own = Perturbation(
        drawn.image_size,
        drawn.top[share],
        drawn.left[share],
        drawn.height[share],
        drawn.width[share],
        drawn.noise[share],
    )
    rgb = image.expand(-1, 3, -1, -1)
    perturbed, footprint = apply_perturbation(rgb, own.to(image.device), config.noise)
    return model.encode(perturbed.contiguous(memory_format=torch.channels_last)), footprint


def lesion_features(
    model: SCRD,
    clean: Sequence[Tensor],
    image: Tensor,
    batch_size: int,
    generator: torch.Generator,
    share: slice,
) -> tuple[list[Tensor], Tensor]:
    """Teacher features of images half of which get a synthetic lesion.

    Args:
        model: the network.
        clean: teacher features u_k of the images, (B, C_k, H_k, W_k) each.
        image: (B, C, S, S), float32, in [0, 1], on the model's device.
        batch_size: images in the batch of all processes, for which lesions are drawn.
        generator: of the CPU.
        share: which part of that batch ``image`` is. Every second of the batch gets a lesion.

    Returns:
        z_k, (B, C_k, H_k, W_k) each, and where the lesions are, (B, 1, S, S), float, in [0, 1].
    """
    own = torch.arange(batch_size)[share]
    chosen = (own % 2 == 0).nonzero()[:, 0]
    drawn = sample_lesions(batch_size, generator)[own[chosen]]
    at = chosen.to(image.device)
    changed, seen = apply_lesions(image[at], drawn)
    where = torch.zeros_like(image[:, :1])
    where[at] = seen
    features = []
    encoded = model.encode(changed.contiguous(memory_format=torch.channels_last))
    for u, z in zip(clean, encoded, strict=True):
        mixed = u.clone()
        mixed[at] = z.to(mixed.dtype)
        features.append(mixed)
    return features, where
