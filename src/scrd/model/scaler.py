"""Standardised features: every channel of the teacher in units of its spread over normals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

EPSILON = 1e-4
"""Added to the standard deviation; a channel that never moves stays at zero."""


class FeatureScaler(nn.Module):
    """(u_k − mean_k) / std_k by channel, a constant of the model; the identity until fitted.

    In a cosine the channels with the largest values speak for all others. Standardised, each
    says how unusual it is.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        for k, count in enumerate(channels):
            self.register_buffer(f"mean{k}", torch.zeros(1, count, 1, 1))
            self.register_buffer(f"std{k}", torch.ones(1, count, 1, 1))

    def _statistics(self, k: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"mean{k}"), self.get_buffer(f"std{k}")

    @torch.no_grad()
    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Take mean and standard deviation of every channel over images and positions.

        Args:
            batches: teacher features, each (B, C_k, H_k, W_k), float, of normal images.
        """
        count = 0
        sums: dict[int, tuple[Tensor, Tensor]] = {}
        for features in batches:
            for k, u in enumerate(features):
                wide = u.cpu().double()  # not every device has it
                found = wide.mean(dim=(2, 3)).sum(0), wide.square().mean(dim=(2, 3)).sum(0)
                before = sums.get(k, (torch.zeros_like(found[0]), torch.zeros_like(found[1])))
                sums[k] = (before[0] + found[0], before[1] + found[1])
            count += len(features[0])
        for k, (total, square) in sums.items():
            mean, std = self._statistics(k)
            center = total / count
            spread = (square / count - center.square()).clamp_min(0).sqrt()
            mean.copy_(center.view_as(mean))
            std.copy_((spread + EPSILON).view_as(std))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Scale u_1..3, (B, C_k, H_k, W_k) each, to the same shapes."""
        scaled = []
        for k, u in enumerate(features):
            mean, std = self._statistics(k)
            scaled.append((u - mean) / std)
        return tuple(scaled)
