"""The contrast of images with lesions and without, at each position: what the default trains."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from scrd.objectives.features import StepFeatures

LESION_WEIGHT = 5.0
"""How much a position of a lesion counts beside a normal one; lesions are a few percent."""


def scrd(step: StepFeatures) -> Tensor:
    r"""⟨(1 + (w − 1) m) · BCE(s, m)⟩, the mean over positions.

    s is the lesion head's logit on the features z of images with lesions, m the share of a position
    that a lesion covers.

    Returns:
        (B,), float, not negative.
    """
    logits, lesions = step.lesion_logits, step.lesions
    assert logits is not None and lesions is not None, "scrd needs lesions and the lesion head"
    entropy = F.binary_cross_entropy_with_logits(logits, lesions, reduction="none")
    return ((1 + (LESION_WEIGHT - 1) * lesions) * entropy).mean(dim=(1, 2))
