"""The whole network: teacher, bottleneck, student and scale head put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scrd.model.acquisition import ExpectedExcess
from scrd.model.blocks import stage_plan
from scrd.model.bottleneck import Bottleneck
from scrd.model.constants import NEW, Constants
from scrd.model.normals import NormalDistances
from scrd.model.scale_head import ScaleHead
from scrd.model.scaler import FeatureScaler
from scrd.model.student import Student
from scrd.model.teacher import Teacher, build_teacher


class Outputs(NamedTuple):
    """What one forward pass gives.

    Attributes:
        clean: teacher features u_k, scaled, (B, C_k, H_k, W_k), float32, k = 1..3.
        student: student features v_k, shaped like ``clean``.
        scale_weights: α, (B, 3), float32, rows sum to 1.
    """

    clean: tuple[Tensor, ...]
    student: tuple[Tensor, ...]
    scale_weights: Tensor


class SCRD(nn.Module):
    """Reverse distillation with a scale head (the paper's figure 1).

    Only ``bottleneck``, ``student`` and ``scale_head`` are trained; ``scaler``, ``normals``
    and ``expected`` hold statistics of the training normals.
    """

    def __init__(
        self, teacher: Teacher, rectify: bool, image_size: int, constants: Constants
    ) -> None:
        super().__init__()
        self.constants = constants
        plan = stage_plan(teacher.mirrors)
        self.teacher = teacher
        self.scaler = FeatureScaler(teacher.channels)
        self.bottleneck = Bottleneck(teacher.channels, plan)
        self.student = Student(teacher.channels, self.bottleneck.out_channels, plan, rectify)
        self.scale_head = ScaleHead(self.bottleneck.out_channels, len(teacher.channels))
        self.normals = NormalDistances(image_size)
        self.expected = ExpectedExcess(len(teacher.channels), constants)

    @torch.no_grad()
    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features u_k of ``image`` (B, 1 or 3, H, W), float32 in [0, 1], without gradient."""
        return self.scaler(self.teacher(image))  # type: ignore[no-any-return]

    def reconstruct(self, clean: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """From teacher features u_k to student features v_k and scale weights α (B, 3)."""
        embedding = self.bottleneck(clean)
        return self.student(embedding), self.scale_head(embedding)

    def forward(self, image: Tensor) -> Outputs:
        """Run teacher and student on ``image`` (B, 1 or 3, H, W), float32 in [0, 1]."""
        clean = self.encode(image)
        student, scale_weights = self.reconstruct(clean)
        return Outputs(clean, student, scale_weights)


def build_model(
    teacher: str,
    weights: str | None = None,
    rectify: bool | None = None,
    image_size: int = 256,
    constants: Constants | None = None,
) -> SCRD:
    """Build the network for a named teacher.

    Args:
        teacher: see :func:`scrd.model.teacher.build_teacher`.
        weights: see there.
        rectify: whether the student ends in ReLUs. None finds out from the teacher's features;
            a saved model passes what it was trained with, and standardised features, which
            take both signs, want False.
        image_size: side of the square input in pixels.
        constants: of a saved model; None for those of a new one.

    Raises:
        TeacherError: see :func:`scrd.model.teacher.build_teacher`.
    """
    built = build_teacher(teacher, weights)
    rectify = built.is_rectified() if rectify is None else rectify
    return SCRD(built, rectify, image_size, constants or NEW)
