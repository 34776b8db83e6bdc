"""How the results of a model are to be shown, kept beside them: no network, no engine, no PyTorch.

Results stay to be looked at when their model is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.data.contract import Contract
from scrd.data.preprocess import Preprocessing
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Inferred, Scorer
from scrd.storage.plain import from_plain, to_plain
from scrd.system.files import write_atomically


class DescribedScorer(Scorer):
    """A model that scored once: it shows results, and scores nothing."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self.preprocessing = from_plain(Preprocessing, described["preprocessing"])
        self.calibration = from_plain(Calibration, described["calibration"])
        self.contract = from_plain(Contract, described["contract"])
        self.fingerprint = described["fingerprint"]
        self._settings = described["settings"]

    @property
    def settings(self) -> Mapping[str, Any]:
        """As the model told them when it was loaded."""
        settings: Mapping[str, Any] = self._settings
        return settings

    def infer(
        self, images: NDArray[np.float32], content: NDArray[np.bool_], *, maps: bool = True
    ) -> Inferred:
        """Nothing runs here.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError


def describe(folder: Path, scorer: Scorer) -> None:
    """Keep what is needed to show the results of a model.

    Args:
        folder: where one file a model lies.
        scorer: saved, so that it has a fingerprint.
    """
    described = {
        "fingerprint": scorer.fingerprint,
        "preprocessing": to_plain(scorer.preprocessing),
        "calibration": to_plain(scorer.calibration),
        "contract": to_plain(scorer.contract),
        "settings": json.loads(json.dumps(dict(scorer.settings), default=str)),
    }
    write_atomically(folder / f"{scorer.fingerprint}.json", json.dumps(described, indent=1))


def read_description(folder: Path, fingerprint: str) -> dict[str, Any]:
    """What `describe` kept of a model.

    Raises:
        KeyError: nothing is kept of it.
    """
    try:
        described: dict[str, Any] = json.loads((folder / f"{fingerprint}.json").read_text())
    except FileNotFoundError:
        raise KeyError(fingerprint) from None
    return described
