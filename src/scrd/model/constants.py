"""The constants that act when an image is scored; a model keeps those it was made with.

Those of memory and lesion head were chosen by ``benchmarks/choose_constants.py``, by
leave-one-set-out on the development sets, and are frozen; ``docs/method.md`` has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

from scrd.objectives import Objective

TOP_FRACTION = 0.02
OFFSET = 0.02
FARTHEST = 3.0
PROTOTYPES = 1500
SHARPNESS = 1.0


@dataclass(frozen=True)
class Term:
    """How memory or lesion head counts in the anomaly map.

    Attributes:
        weight: beside the other.
        level: how much of the image's own mean is taken away, in [0, 1].
    """

    weight: float = 1.0
    level: float = 0.0


MEMORY = Term(weight=1.0, level=0.0)
LESIONS = Term(weight=1.0, level=0.5)


@dataclass(frozen=True)
class Constants:
    """How maps become scores.

    Attributes:
        top_fraction: share of the pixels that ``top`` pooling averages.
        offset: added to the excess before its logarithm, in standard deviations of normals.
        farthest: covariates beyond this many standard deviations of normals are taken as this far.
        prototypes: of the memory of normals.
        sharpness: of the soft minimum, see :func:`scrd.model.scores.agreement`.
        memory: the distance to the memory.
        lesions: the lesion head's logits.
    """

    top_fraction: float = TOP_FRACTION
    offset: float = OFFSET
    farthest: float = FARTHEST
    prototypes: int = PROTOTYPES
    sharpness: float = SHARPNESS
    memory: Term = MEMORY
    lesions: Term = LESIONS

    def terms(self, objective: Objective) -> list[Term]:
        """One for each map of an objective with memory or lesion head; the weights sum to 1."""
        present = [self.memory] * objective.memory + [self.lesions] * objective.lesions
        total = sum(t.weight for t in present)
        return [Term(t.weight / total, t.level) for t in present]
