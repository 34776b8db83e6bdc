"""The memory of normals: how far a position is from the nearest of many normal ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ITERATIONS = 8
"""Of k-means."""

PER_PROTOTYPE = 20
"""Vectors for each prototype, at the least."""

_CHUNK = 4096  # positions compared together


class NormalMemory(nn.Module):
    """Prototypes of normal feature vectors; a distance to the nearest.

    A position is described as PatchCore describes it (Roth et al., CVPR 2022): features at strides
    8 and 16, averaged over 3 x 3 positions, side by side at stride 8; here brought to unit length.
    What is remembered are the means of a spherical k-means over the training normals. They are
    fewer than drawn positions would have to be, and serve better: a rare normal position that was
    not drawn costs a false alarm, and a single odd one that was drawn hides a lesion.

    Args:
        channels: the teacher's channel counts (C_1, C_2, C_3) at strides 4, 8, 16.
        size: number of prototypes M.
    """

    prototypes: Tensor

    def __init__(self, channels: Sequence[int], size: int) -> None:
        super().__init__()
        self.register_buffer("prototypes", torch.zeros(size, channels[1] + channels[2]))

    def describe(self, features: Sequence[Tensor]) -> Tensor:
        """Unit vectors of all positions.

        Args:
            features: u_1, u_2, u_3 of shapes (B, C_k, H_k, W_k), float32, strides 4, 8, 16; what
                comes after them does not count.

        Returns:
            (B, C_2 + C_3, H_2, W_2), float32, of unit length.
        """
        fine, coarse = (
            F.avg_pool2d(u, 3, stride=1, padding=1, count_include_pad=False) for u in features[1:3]
        )
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return F.normalize(torch.cat([fine, coarse], dim=1), dim=1)

    @torch.no_grad()
    def fit(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Find the prototypes by spherical k-means (Dhillon & Modha 2001).

        Args:
            vectors: (N, C_2 + C_3), float32, of unit length, from :meth:`describe`. There are at
                most N / 20 prototypes, or every vector would be its own; the rest repeat them.
            generator: of the CPU, for the first choice.
        """
        count = max(1, min(len(self.prototypes), len(vectors) // PER_PROTOTYPE))
        order = torch.randperm(len(vectors), generator=generator)
        means = vectors[order[:count].to(vectors.device)]
        for _ in range(ITERATIONS):
            nearest = torch.cat(
                [(part @ means.T).argmax(1) for part in torch.split(vectors, _CHUNK)]
            )
            sums = torch.zeros_like(means).index_add_(0, nearest, vectors)
            found = torch.bincount(nearest, minlength=count) > 0
            means = torch.where(found[:, None], F.normalize(sums, dim=1), means)
        self.prototypes.copy_(means[torch.arange(len(self.prototypes)) % count])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """1 − cos to the nearest prototype, (B, H_2, W_2), float32, in [0, 2]."""
        described = self.describe(features)
        batch, channels, height, width = described.shape
        flat = described.flatten(2)
        cosine = torch.matmul(self.prototypes, flat).amax(dim=1)
        return (1 - cosine).view(batch, height, width)
