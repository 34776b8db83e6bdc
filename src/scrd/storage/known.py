"""What a saved model says of normals, read without its network and without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scrd.data.contract import Contract
from scrd.errors import ConfigError, ScrdError
from scrd.scoring.calibration import Calibration
from scrd.storage.plain import from_plain, read_plain
from scrd.system.files import sha256

_INDEXES = ("config.json", "export.json")
_CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Known:
    """What a model folder, or an exported one, says of normals.

    Attributes:
        calibration: what held-out normals said.
        contract: which images it knows.
        fingerprint: as :attr:`scrd.scoring.scorer.Scorer.fingerprint` of the loaded model.
    """

    calibration: Calibration
    contract: Contract
    fingerprint: str


def read_known(folder: Path) -> Known:
    """Read the calibration and the contract of a saved model.

    Args:
        folder: what `scrd train` or `scrd export` wrote.

    Raises:
        ScrdError: there is no model, a file is damaged, or was changed since it was written; the
            message names the file and the cause.
    """
    index = next((folder / name for name in _INDEXES if (folder / name).is_file()), None)
    if index is None:
        raise ScrdError(
            f"{folder}: no such model folder: it holds neither {' nor '.join(_INDEXES)}"
        )
    described, path = read_plain(index, ScrdError), folder / _CALIBRATION
    calibration = read_plain(path, ScrdError)
    if sha256(path) != described.get("sha256", {}).get(_CALIBRATION):
        raise ScrdError(f"{path}: does not match the hash in {index.name}: damaged or changed")
    try:
        return Known(
            from_plain(Calibration, calibration),
            from_plain(Contract, described["contract"]),
            sha256(index),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as e:
        raise ScrdError(f"{index}: does not describe a model ({type(e).__name__}: {e})") from e
