"""What a run ran on, and how much memory it took."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import torch


def device_name(device: torch.device) -> str:
    """The model name of a device, such as ``NVIDIA A100``, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def revision() -> str | None:
    """The git commit of this code, with ``-dirty`` if it was changed since.

    None where the package does not lie in a repository of its own, as once it is installed.
    """
    file = Path(__file__)

    def git(*arguments: str) -> str:
        words = ["git", *arguments]
        return subprocess.run(  # noqa: S603 our own words
            words, cwd=file.parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # a repository around a venv is another's
        return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def finished() -> str:
    """The present time, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class PeakMemory:
    """The largest memory in use while a block runs.

    On a GPU what torch allocated there; else the resident memory of the process, interpreter and
    images included: on Linux its high-water mark since the block began, elsewhere since the
    process began.

    Attributes:
        bytes: the answer, once the block has ended; None where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            gc.collect()  # what a run before left there is not this one's
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self.bytes = _resident_peak()


def _resident_peak() -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
