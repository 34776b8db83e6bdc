"""Residual blocks that halve, keep or double the resolution.

He et al. (2016) for the encoder form; the doubling form, in which a 2x2 transposed convolution
stands where the strided convolution was, is that of RD4AD (Deng & Li, CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Resample = Literal["down", "up", "keep"]


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias; ``stride`` 2 halves the resolution."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def deconv2x2(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """2x2 transposed convolution without bias that doubles the resolution."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)


def _spatial(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    if resample == "up":
        return deconv2x2(in_channels, out_channels)
    return conv3x3(in_channels, out_channels, 2 if resample == "down" else 1)


def _shortcut(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    if resample == "keep" and in_channels == out_channels:
        return nn.Identity()
    projection = (
        deconv2x2(in_channels, out_channels)
        if resample == "up"
        else conv1x1(in_channels, out_channels, 2 if resample == "down" else 1)
    )
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))


class ResidualBlock(nn.Module):
    """``activation(residual(x) + shortcut(x))``.

    Args:
        residual: the residual branch, ending in a BatchNorm.
        shortcut: identity or projection to the same shape.
        rectify: ReLU at the end. ``False`` lets the output be negative, for teachers whose
            features are.
    """

    def __init__(self, residual: nn.Module, shortcut: nn.Module, rectify: bool) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut
        self.activation = nn.ReLU(inplace=True) if rectify else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W'), H' = H/2, H or 2H."""
        out: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return out


def basic_block(
    in_channels: int, out_channels: int, resample: Resample, rectify: bool = True
) -> ResidualBlock:
    """Two 3x3 convolutions (ResNet-18/34)."""
    residual = nn.Sequential(
        _spatial(in_channels, out_channels, resample),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        conv3x3(out_channels, out_channels),
        nn.BatchNorm2d(out_channels),
    )
    return ResidualBlock(residual, _shortcut(in_channels, out_channels, resample), rectify)


def bottleneck_block(
    in_channels: int,
    out_channels: int,
    resample: Resample,
    rectify: bool = True,
    *,
    width_divisor: int = 4,
) -> ResidualBlock:
    """1x1, 3x3, 1x1 convolutions of ``out_channels / width_divisor`` inner channels.

    The divisor is 4 for ResNet-50 and 2 for WideResNet-50-2.
    """
    width = out_channels // width_divisor
    residual = nn.Sequential(
        conv1x1(in_channels, width),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        _spatial(width, width, resample),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        conv1x1(width, out_channels),
        nn.BatchNorm2d(out_channels),
    )
    return ResidualBlock(residual, _shortcut(in_channels, out_channels, resample), rectify)


@dataclass(frozen=True)
class StagePlan:
    """How the stages of bottleneck and student are built for one family of teachers.

    Attributes:
        block: makes one residual block.
        embedding_depth: residual blocks in the one-class embedding.
        student_depths: residual blocks of the student at strides 16, 8 and 4.
    """

    block: Callable[..., ResidualBlock]
    embedding_depth: int
    student_depths: tuple[int, int, int]


def _wide_bottleneck_block(
    in_channels: int, out_channels: int, resample: Resample, rectify: bool = True
) -> ResidualBlock:
    return bottleneck_block(in_channels, out_channels, resample, rectify, width_divisor=2)


# RD4AD mirrors each ResNet with its own blocks and depths; every other teacher gets the plan of
# ResNet-18 at the teacher's own channel counts. A vision transformer is as wide at stride 4 as at
# 16, where two 3x3 convolutions a block would cost ten times what they cost beside ResNet-18.
_PLANS = {
    "resnet34": StagePlan(basic_block, 3, (3, 4, 6)),
    "resnet50": StagePlan(bottleneck_block, 3, (3, 4, 6)),
    "vit": StagePlan(bottleneck_block, 2, (2, 2, 2)),
    "wide_resnet50_2": StagePlan(_wide_bottleneck_block, 3, (3, 4, 6)),
}
_DEFAULT_PLAN = StagePlan(basic_block, 2, (2, 2, 2))

MIRRORED = ("resnet18", *_PLANS)
"""Backbones whose plan a student can be given by name."""


def stage_plan(teacher: str) -> StagePlan:
    """The plan that mirrors the timm backbone ``teacher`` (a tag after a dot is ignored).

    ``vit`` is any plain vision transformer.
    """
    return _PLANS.get(teacher.split(".")[0], _DEFAULT_PLAN)


def make_stage(
    plan: StagePlan,
    in_channels: int,
    out_channels: int,
    depth: int,
    resample: Resample,
    *,
    rectify_last: bool = True,
) -> nn.Sequential:
    """``depth`` residual blocks, the first of which changes resolution and channels."""
    blocks = [plan.block(in_channels, out_channels, resample, depth > 1 or rectify_last)]
    for i in range(1, depth):
        last = i == depth - 1
        blocks.append(plan.block(out_channels, out_channels, "keep", not last or rectify_last))
    return nn.Sequential(*blocks)


def initialise(module: nn.Module) -> None:
    """Kaiming-normal (fan out) convolutions, as RD4AD; transposed ones keep torch's default."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
