"""Doing what is missing of a suite, alone or beside other processes."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import Timeout

from scrd.bench.material import Material, read_material
from scrd.bench.measure import measure
from scrd.bench.results import append_result, canonical, read_results, run_lock
from scrd.bench.suite import Run
from scrd.data.manifest import read_manifest
from scrd.errors import ScrdError
from scrd.system.devices import resolve_device

Say = Callable[[str], None]


def run_missing(
    runs: Sequence[Run],
    data: Path,
    results: Path,
    *,
    device: str = "auto",
    say: Say = print,
    progress: bool = False,
) -> list[str]:
    """Do the runs that the results file lacks, and add each to it.

    A run is done once for the same method, settings, seed, data and version of scrd, by whatever
    suite or process: what another process is doing is left to it, and taken over if that process
    ends without a result. A run that fails does not stop the others.

    Args:
        runs: what is wanted.
        data: folder that holds the data sets' folders.
        results: the file; made if needed.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        say: called with one line of text a run.
        progress: tell on standard error how far each run is.

    Returns:
        For each run that failed, which, and why.

    Raises:
        ConfigError: no such device.
        ManifestError: a data set is missing or not described well.
        ResultsError: the results file cannot be read.
    """
    resolve_device(device)
    fingerprints = {
        name: read_manifest(data / name, for_training=True).fingerprint
        for name in dict.fromkeys(run.data for run in runs)
    }
    keys = [run.key(fingerprints[run.data]) for run in runs]
    _, damaged = read_results(results)
    for problem in damaged:
        say(problem)
    waiting = deque(range(len(runs)))
    busy: set[int] = set()
    problems: list[str] = []
    material = _OneAtATime(data, progress)
    while waiting:
        i = waiting.popleft()
        run, key = runs[i], keys[i]
        lock = run_lock(results, key)
        try:
            # once everything else is done, wait for those who are at work
            lock.acquire(timeout=-1 if i in busy else 0)
        except Timeout:
            busy.add(i)
            waiting.append(i)
            continue
        name = f"[{i + 1}/{len(runs)}] {run.data}, {run.method}, seed {run.config.seed}"
        try:
            done = (canonical(line["key"]) for line in read_results(results).lines)
            if canonical(key) in done:
                continue
            started = time.perf_counter()
            line = measure(run, material.of(run), device, progress=progress)
            append_result(results, {"key": key, **line})
            say(f"{name}: {_headline(line['metrics'])}, {time.perf_counter() - started:.0f} s")
        except Exception as e:  # hours of other runs must not be lost to one
            if not isinstance(e, ScrdError):
                traceback.print_exc()
            problems.append(f"{name}: {type(e).__name__}: {e}")
            say(f"{problems[-1]} (failed)")
        finally:
            lock.release()
    return problems


def _headline(metrics: dict[str, object]) -> str:
    if "auroc" not in metrics:
        return "no AUROC, the test images are of one class"
    interval = metrics["auroc_ci95"]
    assert isinstance(interval, list)
    low, high = interval
    return f"AUROC {metrics['auroc']:.3f} ({low:.3f} to {high:.3f})"


_OF_THE_IMAGES = ("image_size", "resize", "channels", "window")


class _OneAtATime:
    """The images of the data set and seed in use; those before are let go first."""

    def __init__(self, data: Path, progress: bool) -> None:
        self._data, self._progress = data, progress
        self._key: object = None
        self._material: Material | None = None

    def of(self, run: Run) -> Material:
        config = run.config
        names = ("seed", "held_out", "false_alarm_rate", *_OF_THE_IMAGES)
        key = (run.data, *(getattr(config, name) for name in names))
        if self._material is None or key != self._key:
            self._material = None  # before the next is read: both may not fit
            self._material = read_material(self._data / run.data, config, progress=self._progress)
            self._key = key
        return self._material
