"""The results file: one JSON object a line, only ever appended to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from scrd.errors import ScrdError

Line = Mapping[str, Any]

BEFORE: Mapping[str, Any] = {"promise": "group"}
"""What a line means by a setting that it does not name, because it is older than the setting."""

BEFORE_OF_DETECTORS: Mapping[str, Any] = {"noisy_statistics": False, "smoothing": 0.0}
"""The same of settings that baselines have not."""

BEFORE_OF_NOISE: Mapping[str, Any] = {"field": "fresh"}
"""The same of what is in ``noise``."""

RENAMED: Mapping[Any, str] = {"scrd": "srd"}
"""Methods that version 0.2.0 called otherwise."""

BY_SAMPLE = "released, by sample"
"""What ``released`` was in lines that do not name ``noisy_statistics``: a ratio for each image."""


class ResultsError(ScrdError):
    """A results file cannot be read or written; the message names it and the cause."""


class Results(NamedTuple):
    """Content of a results file.

    Attributes:
        lines: the runs, in the order in which they ended.
        damaged: for each line that is no run, the file, its number, and why; such a line is left
            by a process that was killed while it wrote.
    """

    lines: list[Line]
    damaged: list[str]


def read_results(path: Path) -> Results:
    """Read what is there; no file is no run.

    Raises:
        ResultsError: the file cannot be opened, or no line of it is a run.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Results([], [])
    except OSError as e:
        raise ResultsError(f"{path}: cannot be read: {e.strerror}") from e
    lines: list[Line] = []
    damaged: list[str] = []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw.decode("utf-8"))
            reason = "" if isinstance(line, dict) and "key" in line else "no run"
        except ValueError:
            reason = "damaged, probably by an interruption"
        if reason:
            damaged.append(f"{path}: line {number} is {reason}; it is left out")
        else:
            lines.append(_as_meant(line))
    # one line without an end may be the first run of all, interrupted
    if not lines and (len(damaged) > 1 or damaged and content.endswith(b"\n")):
        raise ResultsError(f"{path}: not a results file: no line of it is a run")
    return Results(lines, damaged)


def _as_meant(line: dict[str, Any]) -> dict[str, Any]:
    """The line in today's names."""
    key = line["key"]
    if isinstance(key.get("settings"), dict):
        settings = key["settings"] = {**BEFORE, **key["settings"]}
        if isinstance(settings.get("noise"), dict):  # of a detector
            if key.get("method") == "released" and "noisy_statistics" not in settings:
                key["method"] = BY_SAMPLE
            noise = {**BEFORE_OF_NOISE, **settings["noise"]}
            key["settings"] = {**BEFORE_OF_DETECTORS, **settings, "noise": noise}
    if key.get("version") == "0.2.0":
        key["method"] = RENAMED.get(key.get("method"), key.get("method"))
    return line


def append_result(path: Path, line: Line) -> None:
    """Add a run: one write at the end, on the disk when this returns.

    Several processes may do so at the same time. After a damaged last line a new line is begun.

    Raises:
        OSError: the disk is full.
    """
    data = json.dumps(line, allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            data = data if file.read(1) == b"\n" else b"\n" + data
        if file.write(data) != len(data):
            raise OSError(f"{path}: the disk is full")
        os.fsync(file.fileno())


def canonical(key: Mapping[str, Any]) -> str:
    """The one spelling of a run's key."""
    return json.dumps(key, sort_keys=True)


def digest(key: Mapping[str, Any]) -> str:
    """A name for a run that files can have: 32 hexadecimal digits."""
    return hashlib.sha256(canonical(key).encode()).hexdigest()[:32]


def run_lock(path: Path, key: Mapping[str, Any]) -> FileLock:
    """The lock that a process holds while it does a run.

    The locks lie in a hidden folder beside the results file. The operating system lets one go
    when its process ends, however that ends.
    """
    folder = path.with_name(f".{path.name}.locks")
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{digest(key)}.lock")
