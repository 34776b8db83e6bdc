"""The scale head: how much each scale counts for this image, Eq. (3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaleHead(nn.Module):
    """α = softmax(W · GMP(φ) + b).

    W and b start at zero, so that α starts uniform and stays uniform under an objective that
    does not train it; torch's default initialisation would start the scales at random weights.
    """

    def __init__(self, in_channels: int, scales: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, scales)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def fix(self, scale_weights: Tensor) -> None:
        """Give every image the same ``scale_weights``, (K,), float, non-negative, sum 1."""
        self.linear.weight.zero_()
        self.linear.bias.copy_(scale_weights.clamp_min(1e-6).log())

    @property
    def constant(self) -> bool:
        """Whether every image gets the same weights, fixed or never trained."""
        return not bool(self.linear.weight.any())

    def forward(self, embedding: Tensor) -> Tensor:
        """Weigh the scales.

        Args:
            embedding: φ, (B, C_φ, h, w), float32.

        Returns:
            ``scale_weights`` α, (B, K), float32, in (0, 1), rows sum to 1.
        """
        return torch.softmax(self.linear(embedding.amax(dim=(2, 3))), dim=1)
