"""The trainable bottleneck: multi-scale feature fusion and one-class embedding of RD4AD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scrd.model.blocks import StagePlan, conv3x3, initialise, make_stage


def _halve(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(in_channels, out_channels, stride=2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Bottleneck(nn.Module):
    """Fuse the teacher's three feature maps into the embedding φ.

    Strided 3x3 convolutions bring the maps at strides 4 and 8 to stride 16, the three are
    concatenated, and a residual stage halves them once more (Deng & Li 2022, section 3.2). The
    two layers that RD4AD's file declares and never calls (8,392,704 parameters for
    WideResNet-50-2) are left out.

    Args:
        channels: the teacher's channel counts (C_1, C_2, C_3) at strides 4, 8, 16.
        plan: blocks and depths.
    """

    def __init__(self, channels: Sequence[int], plan: StagePlan) -> None:
        super().__init__()
        c1, c2, c3 = channels
        self.out_channels = 2 * c3
        self.fuse1 = nn.Sequential(_halve(c1, c2), _halve(c2, c3))
        self.fuse2 = _halve(c2, c3)
        self.embed = make_stage(plan, 3 * c3, self.out_channels, plan.embedding_depth, "down")
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Embed.

        Args:
            features: u_1, u_2, u_3 of shapes (B, C_k, H_k, W_k), float32, strides 4, 8, 16.

        Returns:
            ``embedding`` φ, (B, 2 C_3, H/32, W/32), float32, non-negative.
        """
        u1, u2, u3 = features
        fused = torch.cat([self.fuse1(u1), self.fuse2(u2), u3], dim=1)
        embedding: Tensor = self.embed(fused)
        return embedding
