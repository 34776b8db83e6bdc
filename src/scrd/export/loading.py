"""Loading a model of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scrd.errors import ConfigError
from scrd.export.folder import is_exported

if TYPE_CHECKING:
    from scrd.scoring.scorer import Scorer


def load_scorer(model: Path, device: str, devices: int = 1) -> Scorer:
    """A model folder, or an exported one, which needs no PyTorch.

    Args:
        model: the folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; an exported model scores on the CPU.
        devices: how many of them score together.

    Raises:
        ConfigError: an exported model on several devices.
        ScrdError: missing, damaged, of an unknown format, or without what runs it.
    """
    if is_exported(model):
        if devices != 1:
            raise ConfigError(f"{model}: an exported model scores on the CPU, not on --devices")
        from scrd.export.runtime import ExportedScorer

        return ExportedScorer.load(model)
    from scrd.detector import Detector

    return Detector.load(model, device=device, devices=devices)
