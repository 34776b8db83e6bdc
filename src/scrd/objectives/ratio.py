"""Contrastive reverse distillation without scale weights, Eq. (2)."""

from __future__ import annotations

import torch
from torch import Tensor

from scrd.objectives.distance import EPSILON, flat_distance
from scrd.objectives.features import StepFeatures


def scale_ratios(step: StepFeatures) -> Tensor:
    """d(u_k, v_k) / (d(z_k, v_k) + ε) of each scale, d = 1 − cos of the flattened maps.

    Returns:
        (B, K), float, non-negative.
    """
    return torch.stack(
        [
            flat_distance(u, v) / (flat_distance(z, v) + EPSILON)
            for u, v, z in zip(step.clean, step.student, step.noisy, strict=True)
        ],
        dim=1,
    )


def ratio(step: StepFeatures) -> Tensor:
    """Σ_k d(u_k, v_k) / (d(z_k, v_k) + ε), Eq. (2).

    Returns:
        (B,), float, non-negative.
    """
    return scale_ratios(step).sum(dim=1)
