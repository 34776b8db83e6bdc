"""A plain vision transformer, which has one stride, as a backbone of three."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from scrd.model.backbone import STRIDES

GRIDS = (8, 16, 32)
"""Strides, in pixels of the image, that the grid of patches may have."""


def quarters(depth: int) -> tuple[int, int, int]:
    """The last block, counted from 0, of the first three quarters of ``depth`` blocks.

    >>> quarters(12), quarters(24)
    ((2, 5, 8), (5, 11, 17))
    """
    return depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1


class ResampledViT(nn.Module):
    """Brings three maps of one stride to the strides 4, 8 and 16.

    The image is resized so that a whole number of patches covers it: the grid of patches has the
    stride of 8, 16 or 32 pixels that is nearest to the side of a patch, which for patches of 14
    pixels and images of 256 makes 16 × 16 patches of a 224 × 224 image. The maps are interpolated
    to their strides, the earliest block's to the finest. Every resampling is bilinear.

    Args:
        blocks: maps (B, 3, H, W), H and W multiples of ``patch``, to three maps
            (B, C, H/patch, W/patch).
        patch: side of a patch in pixels.
    """

    def __init__(self, blocks: nn.Module, patch: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.patch = patch
        self.grid = min(GRIDS, key=lambda g: abs(math.log(g / patch)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W), H and W multiples of 16, to three maps (B, C, H/s_k, W/s_k)."""
        height, width = image.shape[-2:]
        rows, columns = height // self.grid, width // self.grid
        maps = self.blocks(_resize(image, rows * self.patch, columns * self.patch))
        return [_resize(u, height // s, width // s) for u, s in zip(maps, STRIDES, strict=True)]


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
