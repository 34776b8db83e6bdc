"""What every baseline is: a module that learns from normal images and answers with raw scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scrd.training.log import TrainingError


@dataclass(frozen=True)
class Budget:
    """What every method is given alike.

    Attributes:
        teacher: backbone, see :func:`scrd.model.teacher.build_teacher`; methods without a
            teacher leave it unused.
        weights: file of teacher weights, ``"random"``, or None for the teacher's own source.
        image_size: side S of the square input in pixels, a multiple of 32.
        iterations: training steps of a method that trains by steps.
        batch_size: images a step.
        seed: of everything that is drawn.
        device: ``cpu``, ``cuda`` or ``mps``.
    """

    teacher: str = "efficientnet_lite0"
    weights: str | None = None
    image_size: int = 256
    iterations: int = 4000
    batch_size: int = 16
    seed: int = 0
    device: str = "cpu"


class Answer(NamedTuple):
    """Raw answers for a batch, larger is more anomalous.

    Attributes:
        scores: (B,), float32, in the unit that the method's paper scores images in.
        maps: (B, S, S), float32, at the size of the input; None for a method that has no map.
    """

    scores: Tensor
    maps: Tensor | None


class Baseline(nn.Module, ABC):
    """A competitor, fitted on normal images alone and scored with its last weights.

    Everything it learns or remembers is a parameter or a buffer, so that its size can be counted.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def rgb(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, S, S) on the device, grey ones three times: (B, 3, S, S)."""
        three = images.to(self.budget.device).expand(-1, 3, -1, -1)
        return three.contiguous(memory_format=torch.channels_last)

    def require_finite(self, loss: Tensor | float) -> None:
        """Raise TrainingError where the loss that a training ended with is not finite."""
        if not math.isfinite(last := float(loss)):
            raise TrainingError(f"the loss of {type(self).__name__} became {last}")

    @abstractmethod
    def fit(self, images: Tensor) -> None:
        """Learn from normals.

        Args:
            images: (N, C, S, S), float32, C = 1 or 3, on the CPU: as
                :func:`scrd.data.preprocess.prepare` makes them, nominally in [0, 1]. Left
                unchanged.
        """

    @abstractmethod
    def score(self, images: Tensor) -> Answer:
        """Score a batch.

        Args:
            images: (B, C, S, S), as in :meth:`fit`.

        Returns:
            The answers, on the CPU. An image's answer does not depend on the rest of its batch.
        """
