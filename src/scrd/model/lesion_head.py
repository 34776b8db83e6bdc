"""The lesion head: which position looks like a lesion rather than like a normal one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 128
"""Channels of the hidden layers."""


class LesionHead(nn.Module):
    """A small network at each position, from the teacher's features to a logit.

    The features are those of the image and of the same at half its size: there a position of a
    stride sees twice as far, and a large lesion looks like a small one.

    Trained on normal images with synthetic lesions (:mod:`scrd.synthesis.lesions`) to tell the
    positions of a lesion from all others. That is the contrast of Eq. (2) as a decision: what the
    ratio d(u, v) / d(z, v) asks of the student by one number an image, it asks at each position.

    Args:
        channels: the teacher's channel counts (C_1, C_2, C_3) at strides 4, 8, 16.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        count = 2 * sum(channels)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(count, affine=False),
            nn.Conv2d(count, WIDTH, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, 1, 1),
        )
        final = self.layers[-1]
        assert isinstance(final, nn.Conv2d) and final.bias is not None
        nn.init.constant_(final.bias, -3.0)  # lesions are few

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits at stride 8.

        Args:
            features: six maps, from :meth:`scrd.model.scrd.SCRD.encode`: u_1, u_2, u_3 of shapes
                (B, C_k, H_k, W_k), float32, strides 4, 8, 16; and the same of the image at half
                its size, of half the height and width.

        Returns:
            (B, H_2, W_2), float32; the larger, the more like a lesion.
        """
        side = features[1].shape[-2:]
        joined = [F.avg_pool2d(features[0], 2)]
        for u in features[1:]:
            if u.shape[-2:] != side:
                u = F.interpolate(u, side, mode="bilinear", align_corners=False)
            joined.append(u)
        logits: Tensor = self.layers(torch.cat(joined, dim=1))
        return logits.squeeze(1)
