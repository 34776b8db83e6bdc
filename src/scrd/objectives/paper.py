"""Scale-aware contrastive reverse distillation as the paper's text has it, Eq. (4)."""

from __future__ import annotations

from torch import Tensor

from scrd.objectives.features import StepFeatures
from scrd.objectives.ratio import scale_ratios


def paper(step: StepFeatures) -> Tensor:
    """Σ_k α_k d(u_k, v_k) / (d(z_k, v_k) + ε), Eq. (4).

    α is free to move to the scale with the smallest ratio, and does: see ``docs/method.md``.

    Returns:
        (B,), float, non-negative.
    """
    return (step.scale_weights * scale_ratios(step)).sum(dim=1)
