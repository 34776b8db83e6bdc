"""The exported folder: written whole or not at all, read with care, without PyTorch.

==================================  =========================================================
``export.json``                     format, engine, preprocessing, contract, how well it agrees
                                    with its source, versions, hashes of the rest
``model.onnx``, or                  the network, its statistics of normals, α, map and pooling
``model.xml`` and ``model.bin``
``calibration.json``                that of the source, byte for byte
``card.md``                         for a person: the source's card, and the figures of agreement
==================================  =========================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrd.data.contract import Contract
from scrd.data.preprocess import Preprocessing
from scrd.errors import ConfigError
from scrd.export.errors import ExportError
from scrd.scoring.calibration import Calibration
from scrd.storage.plain import from_plain, read_plain
from scrd.system.files import atomic_folder, sha256

FORMAT = 1
NETWORK_FILES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
}
"""Engine to the files of the network, the first of which it is asked to load."""

CALIBRATION = "calibration.json"
_INDEX = "export.json"


@dataclass(frozen=True)
class Exported:
    """What an exported folder holds.

    Attributes:
        engine: what runs it, see ``NETWORK_FILES``.
        network: the file of the network.
        preprocessing: how a source image becomes model input.
        calibration: what held-out normals said about the source model.
        contract: which images it knows.
        fingerprint: SHA-256 of ``export.json``, in hexadecimal.
    """

    engine: str
    network: Path
    preprocessing: Preprocessing
    calibration: Calibration
    contract: Contract
    fingerprint: str


def is_exported(folder: str | Path) -> bool:
    """Whether a folder is an exported one, and not a model folder."""
    return (Path(folder) / _INDEX).is_file()


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A folder to write an export into, which becomes ``out`` if all goes well, or vanishes.

    Raises:
        ExportError: something is at ``out`` already.
    """
    out = out.absolute()  # "." has no name
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out}: something is there already; choose another place")
    with atomic_folder(out) as folder:
        yield folder


def write_index(folder: Path, engine: str, content: Mapping[str, Any]) -> None:
    """Write ``export.json`` over files that are there.

    Args:
        folder: with the network's files and ``calibration.json``.
        engine: a key of ``NETWORK_FILES``.
        content: ``preprocessing``, ``contract``, as in ``config.json`` of the source, and
            whatever else is worth recording; plain JSON types.
    """
    names = (*NETWORK_FILES[engine], CALIBRATION)
    hashes = {name: sha256(folder / name) for name in names}
    index = {"format": FORMAT, "engine": engine, **content, "sha256": hashes}
    (folder / _INDEX).write_text(json.dumps(index, indent=1, allow_nan=False))


def read_exported(folder: Path) -> Exported:
    """Read and verify an exported folder.

    Raises:
        ExportError: a file is missing, is not JSON, was changed since it was written, or has a
            format that this version does not know.
    """
    if not is_exported(folder) and (folder / "config.json").is_file():
        raise ExportError(
            f"{folder}: a model folder, not an exported one: load it with scrd.Detector.load, or "
            "export it with `scrd export`"
        )
    index = read_plain(folder / _INDEX, ExportError)
    if index.get("format") != FORMAT or index.get("engine") not in NETWORK_FILES:
        raise ExportError(
            f"{folder / _INDEX}: format {index.get('format')!r} for {index.get('engine')!r}; this "
            f"version of scrd reads format {FORMAT} for {' and '.join(NETWORK_FILES)}"
        )
    engine = index["engine"]
    try:
        for name in (*NETWORK_FILES[engine], CALIBRATION):
            if sha256(folder / name) != index["sha256"][name]:
                raise ExportError(
                    f"{folder / name}: does not match the hash in {_INDEX}: damaged or changed "
                    "after the export"
                )
        return Exported(
            engine=engine,
            network=folder / NETWORK_FILES[engine][0],
            preprocessing=from_plain(Preprocessing, index["preprocessing"]),
            calibration=from_plain(Calibration, read_plain(folder / CALIBRATION, ExportError)),
            contract=from_plain(Contract, index["contract"]),
            fingerprint=sha256(folder / _INDEX),
        )
    except OSError as e:
        raise ExportError(f"{e.filename}: not readable ({e.strerror})") from e
    except (ConfigError, KeyError, TypeError, ValueError) as e:
        raise ExportError(
            f"{folder / _INDEX}: does not describe an exported model ({type(e).__name__}: {e})"
        ) from e
