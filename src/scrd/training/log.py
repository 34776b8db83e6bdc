"""The training log, and what ends a training."""

from __future__ import annotations

from dataclasses import dataclass

from scrd.errors import ScrdError


@dataclass(frozen=True)
class LogEntry:
    """One line of the training log.

    Attributes:
        iteration: steps done.
        loss: mean objective of the last batch.
        scale_weights: α averaged over the last batch, one a scale.
        images_per_second: since the last entry.
    """

    iteration: int
    loss: float
    scale_weights: tuple[float, ...]
    images_per_second: float


class TrainingError(ScrdError):
    """Training cannot start or go on; the message says why."""
