"""The whole network: the teacher and what is built on its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.model.acquisition import ExpectedExcess
from scrd.model.areas import AreaScore
from scrd.model.backbone import STRIDES
from scrd.model.blocks import stage_plan
from scrd.model.bottleneck import Bottleneck
from scrd.model.constants import Constants
from scrd.model.lesion_head import LesionHead
from scrd.model.memory import NormalMemory
from scrd.model.normals import NormalMaps
from scrd.model.scale_head import ScaleHead
from scrd.model.scaler import FeatureScaler
from scrd.model.smoothing import Smoothing
from scrd.model.student import Student
from scrd.model.teacher import Teacher, build_teacher
from scrd.objectives import OBJECTIVES
from scrd.objectives.distance import distance_map

TRAINED = ("bottleneck", "student", "scale_head", "lesion_head")
"""The parts of the network that training changes."""


class Reconstruction(NamedTuple):
    """What training asks of the network.

    Attributes:
        student: student features v_k, shaped like the teacher's, k = 1..3; empty without a student.
        scale_weights: α, (B, K), float32, rows sum to 1.
        lesions: logits of the lesion head, (B, H_2, W_2); None of a network without one.
    """

    student: tuple[Tensor, ...]
    scale_weights: Tensor
    lesions: Tensor | None


class Outputs(NamedTuple):
    """What one forward pass gives.

    Attributes:
        maps: what is compared with normals, (B, H_k, W_k) each, float32, larger is more anomalous;
            those that there are of: the distance maps D_k of teacher and student at strides 4, 8
            and 16, in [0, 2]; the distance to the memory, in [0, 2], and the lesion head's logits,
            both at stride 8.
        scale_weights: α, (B, K), float32, rows sum to 1: how much each map counts.
    """

    maps: tuple[Tensor, ...]
    scale_weights: Tensor


class SCRD(nn.Module):
    """A frozen teacher, and what learns from its features what is normal.

    Which parts there are is the objective's: ``bottleneck``, ``student`` and ``scale_head`` (the
    paper's figure 1), ``memory``, ``lesion_head``. Those are trained, but for ``memory``, which
    like ``scaler``, ``normals``, ``expected`` and ``areas`` holds statistics of training normals.

    Attributes:
        weights: how much each map counts where no scale head says so, (K,), float32, sum 1.

    Args:
        teacher: the frozen backbone.
        objective: a name in :data:`scrd.objectives.OBJECTIVES`, which says what parts there are.
        rectify: whether the student ends in ReLUs.
        image_size: side S of the square input in pixels.
        constants: see there.
        smoothing: of anomaly maps, in pixels, see :class:`scrd.model.smoothing.Smoothing`.
    """

    weights: Tensor

    def __init__(
        self,
        teacher: Teacher,
        objective: str,
        rectify: bool,
        image_size: int,
        constants: Constants,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.objective = OBJECTIVES[objective]
        self.constants = constants
        self.rectified = rectify
        self.teacher = teacher
        self.scaler = FeatureScaler(teacher.channels)
        strides: list[int] = []
        if self.objective.student:
            plan = stage_plan(teacher.mirrors)
            self.bottleneck = Bottleneck(teacher.channels, plan)
            embedded = self.bottleneck.out_channels
            self.student = Student(teacher.channels, embedded, plan, rectify)
            self.scale_head = ScaleHead(embedded, len(STRIDES))
            strides += STRIDES
        if self.objective.memory:
            self.memory = NormalMemory(teacher.channels, constants.prototypes)
            strides.append(STRIDES[1])
        if self.objective.lesions:
            self.lesion_head = LesionHead(teacher.channels)
            strides.append(STRIDES[1])
        weights, levels = [1 / len(strides)] * len(strides), [0.0] * len(strides)
        if self.objective.combined:
            terms = constants.terms(self.objective)
            weights, levels = [t.weight for t in terms], [t.level for t in terms]
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.normals = NormalMaps([image_size // stride for stride in strides], levels)
        self.expected = ExpectedExcess(len(strides), constants)
        self.areas = AreaScore()
        self.smooth = Smoothing(image_size, smoothing)

    def trained_parts(self) -> list[nn.Module]:
        """The parts that training changes."""
        return [part for name, part in self.named_children() if name in TRAINED]

    @torch.no_grad()
    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of ``image`` (B, 1 or 3, H, W), float32 in [0, 1], without gradient.

        Returns:
            u_k, (B, C_k, H_k, W_k) each; where there is a lesion head, followed by the three of the
            image at half its size.
        """
        features: tuple[Tensor, ...] = self.scaler(self.teacher(image))
        if self.objective.lesions:
            half = F.avg_pool2d(image, 2).contiguous(memory_format=torch.channels_last)
            features += self.teacher(half)
        return features

    def reconstruct(
        self, clean: Sequence[Tensor], changed: Sequence[Tensor] = ()
    ) -> Reconstruction:
        """From teacher features to what the trained parts make of them.

        Args:
            clean: features u_k of :meth:`encode`, float32.
            changed: features z_k of the images with lesions, for the lesion head.
        """
        lesions = self.lesion_head(changed) if self.objective.lesions and changed else None
        if not self.objective.student:
            return Reconstruction((), self.weights.expand(len(clean[0]), -1), lesions)
        embedding = self.bottleneck(clean)
        return Reconstruction(self.student(embedding), self.scale_head(embedding), lesions)

    def forward(self, image: Tensor) -> Outputs:
        """Run everything on ``image`` (B, 1 or 3, H, W), float32 in [0, 1]."""
        clean = self.encode(image)
        student, scale_weights, _ = self.reconstruct(clean)
        # cosines of long vectors need fp32, whatever the precision of the network
        maps = [distance_map(u.float(), v.float()) for u, v in zip(clean, student, strict=False)]
        if self.objective.memory:
            maps.append(self.memory(clean))
        if self.objective.lesions:
            maps.append(self.lesion_head(clean))
        if self.objective.combined:
            scale_weights = self.weights.expand(len(image), -1)
        return Outputs(tuple(maps), scale_weights.float())


def build_model(
    teacher: str,
    weights: str | None = None,
    rectify: bool | None = None,
    image_size: int = 256,
    constants: Constants | None = None,
    *,
    objective: str = "rd",
    smoothing: float = 0.0,
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
        objective: a name in :data:`scrd.objectives.OBJECTIVES`.
        smoothing: of anomaly maps, in pixels; 0 for none.

    Raises:
        TeacherError: see :func:`scrd.model.teacher.build_teacher`.
    """
    built = build_teacher(teacher, weights)
    if rectify is None:
        # a student that ends in ReLUs cannot reach features of both signs
        rectify = not OBJECTIVES[objective].standardised and built.is_rectified()
    return SCRD(built, objective, rectify, image_size, constants or Constants(), smoothing)
