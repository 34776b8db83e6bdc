"""The objectives: pure functions from the features of a step to what is minimised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from scrd.objectives.algorithm2 import algorithm2
from scrd.objectives.features import StepFeatures
from scrd.objectives.margin import margin
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
            one place that takes their mean. None where nothing is trained.
        by_batch: ``function`` gives one value a batch instead, (), which is no mean over samples,
            so that processes cannot share a batch.
        inert: its scale weights multiply features, which a cosine does not see, so that they have
            no part in the anomaly map either, whatever rounding errors and Adam made of them.
        contrastive: needs the noisy features and the footprint.
        standardised: works on features in units of their spread over normals, see
            :class:`scrd.model.scaler.FeatureScaler`.
        weighed: its scale weights are fitted after training, see
            :mod:`scrd.training.scale_weights`; those of the others are what training made of the
            scale head.
        student: trains bottleneck and student, whose distances to the teacher make maps.
        memory: has a memory of normals, whose distances make a map.
        lesions: perturbs with synthetic lesions (:mod:`scrd.synthesis.lesions`) instead of
            Algorithm 1, and trains a head on them, whose logits make a map.
    """

    function: Callable[[StepFeatures], Tensor] | None
    by_batch: bool = False
    inert: bool = False
    contrastive: bool = True
    standardised: bool = False
    weighed: bool = False
    student: bool = True
    memory: bool = False
    lesions: bool = False

    @property
    def combined(self) -> bool:
        """Whether the anomaly map is made of memory and lesion head, in units of normals."""
        return self.memory or self.lesions


OBJECTIVES: Mapping[str, Objective] = {
    "rd": Objective(rd, contrastive=False),
    "ratio": Objective(ratio),
    "paper": Objective(paper),
    "algorithm2": Objective(algorithm2),
    "released": Objective(released, by_batch=True, inert=True),
    "margin": Objective(margin, standardised=True, weighed=True),
    "srd": Objective(rd, contrastive=False, standardised=True, weighed=True),
    "memory": Objective(None, contrastive=False, student=False, memory=True),
    "lesions": Objective(scrd, student=False, lesions=True),
    "scrd": Objective(scrd, student=False, memory=True, lesions=True),
}
