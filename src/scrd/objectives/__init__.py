"""The objectives: pure functions from the features of a step to one value a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from scrd.objectives.algorithm2 import algorithm2
from scrd.objectives.features import StepFeatures
from scrd.objectives.paper import paper
from scrd.objectives.ratio import ratio
from scrd.objectives.rd import rd
from scrd.objectives.released import released
from scrd.objectives.scrd import scrd

__all__ = ["OBJECTIVES", "Objective", "StepFeatures"]


@dataclass(frozen=True)
class Objective:
    """A named objective.

    Attributes:
        function: from :class:`StepFeatures` to per-sample values (B,); the training loop is the
            one place that takes their mean.
        contrastive: needs the noisy features and the footprint.
    """

    function: Callable[[StepFeatures], Tensor]
    contrastive: bool = True


OBJECTIVES: Mapping[str, Objective] = {
    "rd": Objective(rd, contrastive=False),
    "ratio": Objective(ratio),
    "paper": Objective(paper),
    "algorithm2": Objective(algorithm2),
    "released": Objective(released),
    "scrd": Objective(scrd),
}
