"""Reverse distillation, Eq. (1)."""

from __future__ import annotations

import torch
from torch import Tensor

from scrd.objectives.distance import distance_map
from scrd.objectives.features import StepFeatures


def rd(step: StepFeatures) -> Tensor:
    """Σ_k mean over positions of 1 − cos(u_k, v_k), with C_k = H_k W_k.

    Eq. (1); Deng & Li (CVPR 2022). Uses neither the noisy features nor α.

    Returns:
        (B,), float, in [0, 2K].
    """
    terms = [
        distance_map(u, v).mean(dim=(1, 2)) for u, v in zip(step.clean, step.student, strict=True)
    ]
    return torch.stack(terms).sum(dim=0)
