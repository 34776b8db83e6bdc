"""Devices, precision and versions of a run."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import timm
import torch

from scrd.errors import ConfigError
from scrd.system.version import __version__

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.logger import Logger


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


def resolve_devices(device: str, count: int) -> list[torch.device]:
    """So many devices of a kind that score together, see :func:`resolve_device`.

    Raises:
        ConfigError: there are not so many; of a CPU there is one.
    """
    first = resolve_device(device)
    there = torch.cuda.device_count() if first.type == "cuda" else 1
    if not 1 <= count <= there:
        raise ConfigError(f"no scoring on {count} devices {first.type!r}: this machine has {there}")
    return [torch.device("cuda", i) if count > 1 else first for i in range(count)]


def room_for_features(device: torch.device, limit: float) -> int:
    """Bytes that features of the training images may take on a device.

    Args:
        device: where they are kept; of a GPU's memory at most half of what is free.
        limit: GiB, see ``feature_cache_gib`` of :class:`scrd.config.Config`.
    """
    room = limit * 2**30
    if device.type == "cuda":
        room = min(room, torch.cuda.mem_get_info(device)[0] / 2)
    return int(room)


def make_fabric(
    precision: str = "auto",
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    logger: Logger | None = None,
) -> Fabric:
    """Devices and precision of a run, through Lightning Fabric.

    With more than one device in all, each has its own process. ``Fabric.launch`` starts them by
    running the program's command again; under ``torchrun``, which has started them already, its
    numbers of processes and nodes hold and those given here do not.

    Args:
        precision: a Fabric precision; ``auto`` is bf16-mixed on a GPU that has bf16, else fp32
            (bf16 is slower than fp32 on most CPUs).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: how many of them on each node; of a CPU, processes.
        num_nodes: machines.
        logger: of Fabric's kind; what is logged goes there.

    Raises:
        ConfigError: Fabric knows no such precision, or there are not so many devices.
    """
    from lightning_fabric import Fabric  # takes seconds, and scoring needs none

    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices < 1 or num_nodes < 1:
        raise ConfigError(f"no training on {devices} devices of {num_nodes} nodes")
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    try:
        return Fabric(
            accelerator=device,
            strategy="ddp" if devices * num_nodes > 1 else "auto",
            devices=devices,
            num_nodes=num_nodes,
            precision=precision,  # type: ignore[arg-type]
            loggers=logger,
        )
    except (ValueError, RuntimeError) as e:
        raise ConfigError(
            f"no {precision} training on {devices} device(s) {device!r} a node: {e}"
        ) from e


def is_main_process() -> bool:
    """Whether this is the one process, of those that train together, that writes and prints.

    Known from the environment, before any of them has met the others.
    """
    ranks = ("RANK", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
    return not any(int(os.environ.get(name, 0)) for name in ranks)


def versions() -> dict[str, str]:
    """Versions and machine that produced a result."""
    return {
        "scrd": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
