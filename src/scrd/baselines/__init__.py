"""Competitors by name, each fitted and scored through :class:`~scrd.baselines.method.Baseline`."""

from __future__ import annotations

from collections.abc import Mapping

from scrd.baselines.autoencoder import Autoencoder, UncertaintyAutoencoder
from scrd.baselines.brightness import Brightness
from scrd.baselines.confounds import Confounds
from scrd.baselines.cutpaste import CutPaste
from scrd.baselines.efficientad import EfficientAD
from scrd.baselines.flows import CFlow, FastFlow
from scrd.baselines.knn import KNN
from scrd.baselines.mahalanobis import Mahalanobis
from scrd.baselines.memae import MemAE
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.baselines.morphaeus import MorphAEus
from scrd.baselines.nsa import NSA
from scrd.baselines.padim import PaDiM
from scrd.baselines.patchcore import PatchCore
from scrd.baselines.rdpp import RDPP
from scrd.baselines.recontrast import ReContrast
from scrd.baselines.simplenet import SimpleNet
from scrd.baselines.squid import SQUID

__all__ = ["BASELINES", "Answer", "Baseline", "Budget"]

BASELINES: Mapping[str, type[Baseline]] = {
    "confounds": Confounds,
    "brightness": Brightness,
    "mahalanobis": Mahalanobis,
    "knn": KNN,
    "ae": Autoencoder,
    "aeu": UncertaintyAutoencoder,
    "memae": MemAE,
    "morphaeus": MorphAEus,
    "squid": SQUID,
    "cutpaste": CutPaste,
    "nsa": NSA,
    "padim": PaDiM,
    "patchcore": PatchCore,
    "simplenet": SimpleNet,
    "rdpp": RDPP,
    "recontrast": ReContrast,
    # these import anomalib, an extra of this package, when one is built
    "fastflow": FastFlow,
    "cflow": CFlow,
    "efficientad": EfficientAD,
}
