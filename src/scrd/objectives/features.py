"""What an objective is given: the features of one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepFeatures:
    """Features of one batch, k = 1..K scales.

    Attributes:
        clean: teacher features u_k of the images, (B, C_k, H_k, W_k), float, no gradient.
        student: student features v_k, shaped like ``clean``.
        noisy: teacher features z_k of the perturbed images, shaped like ``clean``, no gradient;
            empty for an objective that is not contrastive.
        scale_weights: α, (B, K), float, rows sum to 1.
        footprint: where the images were perturbed, (B, 1, H, W), bool; None for an objective
            that is not contrastive.
        lesion_logits: of the lesion head on the noisy features, (B, H_2, W_2), float; None for an
            objective without one.
        lesions: share of each of its positions that a lesion covers, (B, H_2, W_2), float, in
            [0, 1].
    """

    clean: Sequence[Tensor]
    student: Sequence[Tensor]
    noisy: Sequence[Tensor]
    scale_weights: Tensor
    footprint: Tensor | None = None
    lesion_logits: Tensor | None = None
    lesions: Tensor | None = None
