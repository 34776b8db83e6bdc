"""The model folder: written whole or not at all, read with care, no pickle anywhere.

=====================  ========================================================================
``config.json``        format, versions, settings, preprocessing, provenance, hashes of the rest
``weights.safetensors``  all tensors of the network, the teacher's included
``calibration.json``   scores of the calibration normals, threshold, pooling
``training.jsonl``     the training log
``card.md``            what it was trained on, measured figures, limits, for a person
=====================  ========================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scrd.errors import ScrdError
from scrd.storage.plain import read_plain
from scrd.system.files import atomic_folder, sha256

FORMAT = 3
_REQUIRED = ("weights.safetensors", "calibration.json")


class ModelFolderError(ScrdError):
    """A model folder cannot be read or written; the message names the file and the cause."""


@dataclass(frozen=True)
class Contents:
    """What a model folder holds.

    Attributes:
        config: content of ``config.json`` without the hashes.
        calibration: content of ``calibration.json``.
        weights: name → tensor.
    """

    config: Mapping[str, Any]
    calibration: Mapping[str, Any]
    weights: Mapping[str, Tensor]


def write_model_folder(
    folder: Path, contents: Contents, *, log_lines: str, card: str, replace: bool = False
) -> None:
    """Write a model folder beside its place and move it there.

    Raises:
        ModelFolderError: the place is taken and ``replace`` is not set, or taken by something
            that is not a model folder.
    """
    refuse_if_taken(folder, replace)
    with atomic_folder(folder) as building:
        tensors = {k: v.contiguous() for k, v in contents.weights.items()}
        try:
            save_file(tensors, building / _REQUIRED[0])
        except SafetensorError as e:  # a full disk has no OSError here
            raise ModelFolderError(f"{folder}: the weights cannot be written: {e}") from e
        (building / _REQUIRED[1]).write_text(
            json.dumps(contents.calibration, indent=1, allow_nan=False)
        )
        # safetensors lets nobody but the owner read
        shutil.copymode(building / _REQUIRED[1], building / _REQUIRED[0])
        (building / "training.jsonl").write_text(log_lines)
        (building / "card.md").write_text(card, encoding="utf-8", errors="surrogateescape")
        hashes = {name: sha256(building / name) for name in _REQUIRED}
        config = {"format": FORMAT, **contents.config, "sha256": hashes}
        (building / "config.json").write_text(json.dumps(config, indent=1, allow_nan=False))


def refuse_if_taken(folder: Path, replace: bool) -> None:
    """Raise ModelFolderError unless a model may be written to ``folder``."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "config.json").is_file():
        raise ModelFolderError(f"{folder}: exists and is not a model folder; choose another place")
    if not replace:
        raise ModelFolderError(f"{folder}: a model is there already; --overwrite replaces it")


def read_model_folder(folder: Path) -> Contents:
    """Read and verify a model folder.

    Raises:
        ModelFolderError: a file is missing, is not JSON or safetensors, was changed since it was
            written, or has a format that this version does not know.
    """
    if not folder.is_dir():
        hint = ""
        if folder.with_name(folder.name + ".partial").is_dir():
            hint = "; its training was interrupted: `scrd train ... --resume` finishes it"
        raise ModelFolderError(f"{folder}: no such model folder{hint}")
    if (folder / "checkpoint.safetensors").is_file():
        raise ModelFolderError(
            f"{folder}: an interrupted training, not a model; `scrd train ... --resume` finishes it"
        )
    if (folder / "export.json").is_file():
        raise ModelFolderError(
            f"{folder}: an exported model, not a model folder: load it with "
            "scrd.export.runtime.ExportedScorer.load; the commands score and watch take it as it is"
        )
    config = read_plain(folder / "config.json", ModelFolderError)
    if config.get("format") != FORMAT:
        raise ModelFolderError(
            f"{folder / 'config.json'}: format {config.get('format')!r}, this version of scrd "
            f"reads format {FORMAT} (the model was written by scrd {config.get('scrd_version')})"
        )
    for name in _REQUIRED:
        path = folder / name
        if not path.is_file():
            raise ModelFolderError(f"{path}: missing from the model folder")
        if sha256(path) != config.get("sha256", {}).get(name):
            raise ModelFolderError(
                f"{path}: does not match the hash in config.json: damaged or changed after training"
            )
    try:
        weights = load_file(folder / _REQUIRED[0])
    except Exception as e:
        raise ModelFolderError(f"{folder / _REQUIRED[0]}: not a safetensors file ({e})") from e
    return Contents(config, read_plain(folder / _REQUIRED[1], ModelFolderError), weights)


def read_fingerprint(folder: Path) -> str:
    """SHA-256, in hexadecimal, of ``config.json``, which holds the hashes of the rest."""
    return sha256(folder / "config.json")
