"""Cosine distances between feature maps, the terms that every objective is made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
"""The paper's ε: keeps a denominator from zero."""


def flat_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 − cos of the maps flattened to one vector a sample, as the paper does for Eq. (2).

    Args:
        a: (B, C, H, W), float.
        b: shaped like ``a``.

    Returns:
        (B,), float, in [0, 2].
    """
    return 1 - F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)


def distance_map(a: Tensor, b: Tensor) -> Tensor:
    """1 − cos of the feature vectors at each position, the summand of Eq. (1).

    Args:
        a: (B, C, H, W), float.
        b: shaped like ``a``.

    Returns:
        (B, H, W), float, in [0, 2].
    """
    return 1 - F.cosine_similarity(a, b, dim=1)
