"""Reverse distillation, Eq. (1) in the form that is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from scrd.objectives.distance import flat_distance
from scrd.objectives.features import StepFeatures


def rd(step: StepFeatures) -> Tensor:
    """Σ_k d(u_k, v_k), d = 1 − cos of the flattened maps.

    Deng & Li (CVPR 2022). Eq. (1) prints the cosine per position; RD4AD's training, and this
    paper's from Eq. (2) on, flatten the maps first. A position then counts by the length of its
    feature vector, and the student must match the lengths' pattern too. Measured here, that is
    worth 2 to 4 points of AUROC: see ``docs/method.md``. Uses neither the noisy features nor α.

    Returns:
        (B,), float, in [0, 2K].
    """
    terms = [flat_distance(u, v) for u, v in zip(step.clean, step.student, strict=True)]
    return torch.stack(terms).sum(dim=0)
