"""A Gaussian filter over anomaly maps, as reverse distillation's released codes end with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TRUNCATE = 4.0
"""Standard deviations at which the filter ends, as scipy has it."""


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """The filter along one axis as a matrix: ``scipy.ndimage.gaussian_filter1d``.

    Beyond its ends a map goes on mirrored, its border pixel twice (scipy's ``reflect``). Rows and
    columns sum to 1: the mean of a map stays what it is.

    Args:
        size: S, pixels along the axis.
        sigma: standard deviation in pixels, positive.

    Returns:
        (S, S), float32, symmetric.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights /= weights.sum()
    at = (torch.arange(size)[:, None] + offsets) % (2 * size)
    at = torch.where(at < size, at, 2 * size - 1 - at)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, at, weights.expand(size, -1))
    return matrix.float()


class Smoothing(nn.Module):
    """Smooths maps with ``scipy.ndimage.gaussian_filter``.

    Two products with one constant matrix, which every engine of an export has.

    Args:
        size: side S of the maps in pixels.
        sigma: standard deviation in pixels; 0 leaves maps as they are.
    """

    matrix: Tensor | None

    def __init__(self, size: int, sigma: float) -> None:
        super().__init__()
        matrix = gaussian_matrix(size, sigma) if sigma else None
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Smooth ``maps``, (B, S, S), float32."""
        if self.matrix is None:
            return maps
        return self.matrix @ maps @ self.matrix
