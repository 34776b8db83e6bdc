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
        scale_weights: α averaged over the last batch, one a scale; empty without a student.
        images_per_second: since the last entry.
    """

    iteration: int
    loss: float
    scale_weights: tuple[float, ...]
    images_per_second: float

    def figures(self) -> dict[str, float]:
        """By name, for a logger that takes one number a name."""
        weights = {f"scale_weight_{k}": a for k, a in enumerate(self.scale_weights, start=1)}
        return {"loss": self.loss, "images_per_second": self.images_per_second, **weights}

    def __str__(self) -> str:
        return f"loss {self.loss:.4g}, {self.images_per_second:.3g} images/s"


class TrainingError(ScrdError):
    """Training cannot start or go on; the message says why."""


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal, and what it had learnt was saved before.

    Attributes:
        done: iterations in the checkpoint.
        total: iterations in all.
    """

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"training interrupted at iteration {done} of {total}")
        self.done, self.total = done, total
