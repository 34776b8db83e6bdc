"""A watch as a whole: how it is, and whether what it scored has drifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from scrd.archive.status import Status
from scrd.errors import ScrdError
from scrd.monitor.drift import Drift, find_drift
from scrd.monitor.rates import Expected, Rate, flag_rate
from scrd.monitor.stream import read_stream
from scrd.monitor.words import alarm_lines, in_a_line
from scrd.outputs.history_file import models, reading
from scrd.storage.known import read_known

_TOLD = ("images", "counted", "wealth", "alarms", "notes")


@dataclass(frozen=True)
class WatchDrift:
    """What is said of the drift of what a watch scored.

    Attributes:
        line: all in a line.
        alarms: a sentence each, in rising order.
        expected: the rate of flags among normal studies; None where drift is not known.
        found: some keys of `Drift.to_dict`; None likewise.
        unknown: why it is not known; empty where it is.
    """

    line: str
    alarms: tuple[str, ...] = ()
    expected: Expected | None = None
    found: dict[str, Any] | None = None
    unknown: str = ""


@dataclass(frozen=True)
class Overview:
    """How a watch is, with its drift."""

    status: Status
    drift: WatchDrift

    @property
    def flags(self) -> tuple[Rate, Expected] | None:
        """Flags among the studies that were done, and what is to be expected of normal ones."""
        one, expected = self.status, self.drift.expected
        if expected is None or not one.done:
            return None
        return flag_rate([i < one.flagged for i in range(one.done)]), expected

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; ``docs/commands.md`` has the keys, under `scrd status`."""
        rate = None
        if self.flags is not None:
            found, expected = self.flags
            rate = {
                "rate": found.rate,
                "limits": list(found.limits),
                "expected": expected.rate,
                "expected_limits": list(expected.limits),
                "compared": expected.compared(found),
            }
        drift = {"drift": self.drift.found, "no_drift": self.drift.unknown}
        return {**self.status.to_dict(), "flag_rate": rate, **drift}


def begin_of(days: int = 1) -> float:
    """When the last days began, today included, by local time; seconds since the epoch."""
    midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - timedelta(days=days - 1)).timestamp()


def drift_of(one: Status, model: Path | None = None, reference: Sequence[Path] = ()) -> WatchDrift:
    """What `scrd monitor` finds in all studies that a state file keeps, or why it finds nothing.

    Args:
        one: how the watch is.
        model: folder of the model; by default the one that watches.
        reference: tables to compare with, by default the calibration normals.

    Raises:
        ScrdError: the model or reference that was asked for cannot be used.
    """
    drift, unknown = _find(one, model, reference)
    if drift is None:
        return WatchDrift(f"not known: {unknown}", unknown=unknown)
    whole = drift.to_dict()
    return WatchDrift(
        in_a_line(drift),
        tuple(alarm_lines(drift)) if drift.alarms else (),
        drift.expected,
        {name: whole[name] for name in _TOLD},
    )


def _find(one: Status, model: Path | None, reference: Sequence[Path]) -> tuple[Drift | None, str]:
    asked = model is not None or bool(reference)
    folder = model or (Path(one.model_folder) if one.model_folder else None)
    if folder is None:
        return None, "it is not known which model watches; scrd status --model names one"
    try:
        known = read_known(folder)
        with reading(one.state) as db:
            scored = models(db)
        if not scored:
            return None, "no study was scored yet"
        if not asked and known.fingerprint != one.model:
            return None, f"{folder}: holds another model than the one that watches"
        stream = read_stream([one.state], known.fingerprint)
        accepted = None
        if reference:
            accepted = read_stream(reference, known.fingerprint, apart_from=stream.tables)
        return find_drift(stream, known, accepted), ""
    except ScrdError as e:
        if asked:
            raise
        return None, str(e)
