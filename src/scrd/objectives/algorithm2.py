"""The pseudo-code of the paper's appendix, Algorithm 2."""

from __future__ import annotations

import torch
from torch import Tensor

from scrd.objectives.distance import EPSILON, flat_distance
from scrd.objectives.features import StepFeatures


def algorithm2(step: StepFeatures) -> Tensor:
    """(Σ_k α_k d(u_k, v_k)) / (Σ_k α_k d(z_k, v_k) + ε): a ratio of sums, unlike Eq. (4).

    Returns:
        (B,), float, non-negative.
    """
    pull = torch.stack(
        [flat_distance(u, v) for u, v in zip(step.clean, step.student, strict=True)], dim=1
    )
    push = torch.stack(
        [flat_distance(z, v) for z, v in zip(step.noisy, step.student, strict=True)], dim=1
    )
    alpha = step.scale_weights
    return (alpha * pull).sum(dim=1) / ((alpha * push).sum(dim=1) + EPSILON)
