"""Competitors by name, each fitted and scored through :class:`~scrd.baselines.method.Baseline`."""

from __future__ import annotations

from collections.abc import Mapping

from scrd.baselines.anomalydino import AnomalyDINO
from scrd.baselines.autoencoder import Autoencoder, UncertaintyAutoencoder
from scrd.baselines.brightness import Brightness
from scrd.baselines.confounds import Confounds
from scrd.baselines.cutpaste import CutPaste
from scrd.baselines.dinomaly import Dinomaly
from scrd.baselines.efficientad import EfficientAD
from scrd.baselines.flows import CFlow, FastFlow
from scrd.baselines.ganensemble import GANEnsemble
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
from scrd.baselines.ucad import UCAD
from scrd.baselines.uniad import UniAD

__all__ = ["BASELINES", "Answer", "Baseline", "Budget"]

BASELINES: Mapping[str, type[Baseline]] = {
    "confounds": Confounds,
    "brightness": Brightness,
    "mahalanobis": Mahalanobis,
    "knn": KNN,
    "ae": Autoencoder,
    "aeu": UncertaintyAutoencoder,
    "memae": MemAE,
    "ganensemble": GANEnsemble,
    "morphaeus": MorphAEus,
    "squid": SQUID,
    "cutpaste": CutPaste,
    "nsa": NSA,
    "padim": PaDiM,
    "patchcore": PatchCore,
    "simplenet": SimpleNet,
    "rdpp": RDPP,
    "recontrast": ReContrast,
    "uniad": UniAD,
    "ucad": UCAD,
    "dinomaly": Dinomaly,
    "anomalydino": AnomalyDINO,
    # these import anomalib, an extra of this package, when one is built
    "fastflow": FastFlow,
    "cflow": CFlow,
    "efficientad": EfficientAD,
}
