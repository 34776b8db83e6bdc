"""How many threads compute, and how they wait for one another.

A property of the process, not of a model: nothing of it is saved with one. Nothing here imports
PyTorch, since what is set in the environment acts only on libraries that are loaded afterwards.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def wait_politely() -> None:
    """Let threads that wait for others sleep instead of spin, unless the user says otherwise.

    OpenMP's threads spin at the end of every parallel loop. Where another process holds the core
    of the one that they wait for, they burn the time that it needs, and a program on all cores
    takes longer than on one. Acts on libraries that are loaded after the call.
    """
    if "GOMP_SPINCOUNT" not in os.environ and "KMP_BLOCKTIME" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def use_threads(count: int | None = None) -> None:
    """Fix how many threads compute in this process, and in those that it starts.

    Args:
        count: of threads, at least 1. None: what ``OMP_NUM_THREADS`` says; without it the
            library's own choice, the cores that the process may run on, but no more than its
            control group grants. How busy the machine is has no say: sums are rounded by the
            number of threads, and the same training would not give the same weights twice.
    """
    if count is None:
        granted = _granted()
        if _asked() is not None or granted is None or granted >= _allowed():
            return
        count = granted
    os.environ["OMP_NUM_THREADS"] = str(count)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


def thread_count() -> int:
    """How many threads compute, or read files, where nothing else is said."""
    return _asked() or min(_allowed(), _granted() or sys.maxsize)


def _asked() -> int | None:
    """What the environment asks for; of a list, one number a level, the outermost."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _allowed() -> int:
    """Cores that the process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _granted() -> int | None:
    """Cores that the control groups of the process grant it, rounded up; None without a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    own = next((line[4:] for line in lines if line.startswith("0::/")), "")
    folder = _CGROUPS / own
    limits = [_quota(place) for place in (folder, *folder.parents) if _CGROUPS in place.parents]
    limits += [_quota(_CGROUPS), _quota(_CGROUPS / "cpu")]
    found = [limit for limit in limits if limit is not None]
    return max(1, math.ceil(min(found))) if found else None


def _quota(group: Path) -> float | None:
    """Cores that one control group grants, of either version of the kernel's interface."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None
    return cores if cores > 0 else None
