"""Transformer layers with linear attention, which cannot look at single places only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64
"""Channels of a head, as in every plain vision transformer."""

EXPANSION = 4
"""Hidden channels of a layer's perceptron, in those of its input."""

_EPSILON = 1e-6  # below any sum of weights that occurs


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without softmax, whose weights are products of positive features.

        out_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j),   φ(x) = elu(x) + 1

    Katharopoulos et al., *Transformers are RNNs*, ICML 2020. Keys and values are summed before a
    query is seen, so the cost is linear in the number of positions.

    Args:
        q: queries, (..., N, E), float.
        k: keys, (..., M, E), float.
        v: values, (..., M, C), float.

    Returns:
        (..., N, C), in the convex hull of the values.
    """
    q, k = F.elu(q) + 1, F.elu(k) + 1
    summed = k.mT @ v
    weight = q @ k.sum(dim=-2).unsqueeze(-1)
    return q @ summed / weight.clamp_min(_EPSILON)


class Perceptron(nn.Sequential):
    """D to 4 D channels, GELU, and back; dropout after both where ``dropout`` is not 0.

    Maps (..., D) to the same shape.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        hidden = EXPANSION * width
        super().__init__(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )


class LinearLayer(nn.Module):
    """A pre-norm transformer layer with :func:`linear_attention`.

    Args:
        width: D, channels, a multiple of ``HEAD``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % HEAD:
            raise ValueError(f"{width} channels are no whole number of heads of {HEAD}")
        self.heads = width // HEAD
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = Perceptron(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        parts = self.qkv(self.norm_attention(tokens)).unflatten(2, (3, self.heads, HEAD))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attended = linear_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(attended)
        mapped: Tensor = tokens + self.perceptron(self.norm_perceptron(tokens))
        return mapped
