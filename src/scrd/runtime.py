"""Devices, precision and versions of a run."""

from __future__ import annotations

import platform

import timm
import torch
from lightning_fabric import Fabric

from scrd import __version__
from scrd.errors import ConfigError


def resolve_device(device: str) -> torch.device:
    """``auto`` is the first of CUDA, MPS and CPU that is there.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there.get(device, False):
        known = ", ".join(name for name, available in there.items() if available)
        raise ConfigError(f"no device {device!r} on this machine: choose auto, {known}")
    return torch.device(device)


def make_fabric(precision: str = "auto", device: str = "auto") -> Fabric:
    """Device and precision of a run, through Lightning Fabric.

    Args:
        precision: a Fabric precision; ``auto`` is bf16-mixed on a GPU that has bf16, else fp32
            (bf16 is slower than fp32 on most CPUs).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: Fabric knows no such precision.
    """
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    try:
        return Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    except ValueError as e:
        raise ConfigError(f"precision {precision!r}: {e}") from e


def versions() -> dict[str, str]:
    """Versions and machine that produced a result."""
    return {
        "scrd": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
