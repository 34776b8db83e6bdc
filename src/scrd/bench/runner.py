"""Doing what is missing of a suite, alone or beside other processes."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from filelock import Timeout

from scrd.bench.found import cell_of
from scrd.bench.kept_maps import KeptMaps, maps_folder
from scrd.bench.material import Material, read_material
from scrd.bench.measure import measure
from scrd.bench.methods import require_weights
from scrd.bench.results import Line, append_result, canonical, read_results, run_lock
from scrd.bench.suite import Run
from scrd.bench.words import cell_text
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
    material, ready = _OneAtATime(data, progress), _Ready()
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
        name = f"[{i + 1}/{len(runs)}] {run.data}, {run.label}, seed {run.config.seed}"
        try:
            done = (canonical(line["key"]) for line in read_results(results).lines)
            if canonical(key) in done:
                continue
            started = time.perf_counter()
            ready.require(run)
            write = partial(KeptMaps.write, folder=maps_folder(results), key=key)
            line = measure(run, material.of(run), device, on_maps=write, progress=progress)
            append_result(results, {"key": key, **line})
            seconds = time.perf_counter() - started
            say(f"{name}: AUROC {headline(run, {'key': key, **line})}, {seconds:.0f} s")
        except Exception as e:  # hours of other runs must not be lost to one
            if not isinstance(e, ScrdError):
                traceback.print_exc()
            problems.append(f"{name}: {type(e).__name__}: {e}")
            say(f"{problems[-1]} (failed)")
        finally:
            lock.release()
    return problems


def headline(run: Run, line: Line) -> str:
    """What tables say of a run, in their words: the AUROC of each row that reports it."""
    found = [(row.label, cell_of([line], row, "auroc")) for row in run.rows]
    told = {label: cell_text(c) for label, c in found if c is not None}
    if not told:
        return "has no value, the test images are of one class"
    if len(told) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{label} {text}" for label, text in told.items())


class _Ready:
    """Which methods can be built here, each asked once."""

    def __init__(self) -> None:
        self._known: dict[object, ScrdError | None] = {}

    def require(self, run: Run) -> None:
        """Raise what building the run's method raises, before its images are read."""
        config = run.config
        key = (run.method, config.teacher, config.weights, config.image_size)
        if key not in self._known:
            try:
                require_weights(run)
                self._known[key] = None
            except ScrdError as e:
                self._known[key] = e
        problem = self._known[key]
        if problem is not None:
            raise problem


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
        key = (run.data, run.split, *(getattr(config, name) for name in names))
        if self._material is None or key != self._key:
            self._material = None  # before the next is read: both may not fit
            folder = self._data / run.data
            self._material = read_material(folder, config, split=run.split, progress=self._progress)
            self._key = key
        return self._material
