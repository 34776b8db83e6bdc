"""The teacher's features of a training step: of the images, kept, and of the perturbed images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scrd.model import SCRD
from scrd.system.devices import room_for_features


def cached_features(
    model: SCRD, images: Tensor, device: torch.device, limit: float
) -> list[Tensor] | None:
    """Teacher features of a whole set.

    They lie on the device: to fetch them for each step from the host would take a GPU longer than
    to compute them again.

    Args:
        model: the network, on the device.
        images: (N, C, S, S), float32, in [0, 1], on the CPU.
        device: where the features are kept.
        limit: see :func:`scrd.system.devices.room_for_features`.

    Returns:
        u_k, (N, C_k, H_k, W_k) each, or None if they would exceed the limit.
    """
    probe = model.encode(images[:1].to(device))
    if sum(f.nbytes for f in probe) * len(images) > room_for_features(device, limit):
        return None
    cache = [f.new_empty(len(images), *f.shape[1:]) for f in probe]
    for i in range(0, len(images), 32):
        for whole, part in zip(cache, model.encode(images[i : i + 32].to(device)), strict=True):
            whole[i : i + 32] = part
    return cache


def with_some_changed(
    clean: Sequence[Tensor], changed: Sequence[Tensor], at: Tensor
) -> list[Tensor]:
    """Features of a batch in which some images are changed.

    Args:
        clean: features of all images, (B, C_k, H_k, W_k) each.
        changed: of the changed ones, (N, C_k, H_k, W_k) each.
        at: (N,), int64, which these are.
    """
    mixed = []
    for u, z in zip(clean, changed, strict=True):
        mixed.append(u.clone().index_copy_(0, at, z.to(u.dtype)))  # keeps the memory format
    return mixed
