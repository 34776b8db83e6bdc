"""What a teacher is made of, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

STRIDES = (4, 8, 16)
"""Pixels of the image that one step on each of the teacher's three maps spans."""


@dataclass(frozen=True)
class Backbone:
    """Three feature maps and how the image has to come.

    Attributes:
        module: maps (B, 3, H, W), float32, normalised by ``mean`` and ``std``, to three maps
            (B, C_k, H/s_k, W/s_k), s = 4, 8, 16; channels last where it has an ``output_fmt``
            that says so.
        channels: (C_1, C_2, C_3).
        source: where the weights came from, in words.
        mirrors: the timm backbone whose blocks and depths suit the student, see
            :func:`scrd.model.blocks.stage_plan`.
        mean: subtracted from each channel of an image in [0, 1].
        std: each channel is then divided by it.
        package: name and version of the package that brings the backbone by an entry point; None
            for those of timm.
    """

    module: nn.Module
    channels: tuple[int, int, int]
    source: str
    mirrors: str
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    package: str | None = None
