"""What the authors' released training script computes, in which α has no effect."""

from __future__ import annotations

from torch import Tensor

from scrd.objectives.distance import flat_distance
from scrd.objectives.features import StepFeatures


def released(step: StepFeatures) -> Tensor:
    """(Σ_k ⟨d(α_k u_k, α_k v_k)⟩) / (Σ_k ⟨d(α_k z_k, α_k v_k)⟩), ⟨·⟩ the mean over the batch.

    α multiplies the *features*, and the cosine does not see a positive factor: value and
    gradients are those without α. The ratio is of means over the batch, unlike that of every
    other objective, and no ε keeps the denominator from zero, which the patches do.

    Returns:
        (), float, non-negative.
    """
    pull = push = step.scale_weights.new_zeros(())
    for k, (u, v, z) in enumerate(zip(step.clean, step.student, step.noisy, strict=True)):
        alpha = step.scale_weights[:, k].view(-1, 1, 1, 1)
        pull = pull + flat_distance(alpha * u, alpha * v).mean()
        push = push + flat_distance(alpha * z, alpha * v).mean()
    return pull / push
