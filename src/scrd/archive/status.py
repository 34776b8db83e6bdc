"""How a watch is, by its state file alone: whether it lives, what it did, what waits."""

from __future__ import annotations

import re
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from scrd.errors import ScrdError
from scrd.outputs.history_file import HistoryError, is_database, is_state, reading

SILENT_SECONDS = 60.0
"""A process that gave no sign of life for so long is dead."""
AWAY_SECONDS = 600.0
"""An archive that has not answered for so long, and for three waits between two looks, is away."""
STUDY_SECONDS = 1800.0
"""A study that is in hand for so long hangs."""

FLAGGED = 100
"""How many flagged studies are listed at most."""

Health = Literal["well", "dead", "stuck"]

_COUNT = re.compile(r"^none of \d+ images could be scored: ")


@dataclass(frozen=True)
class Flagged:
    """A study that was flagged.

    Attributes:
        at: when, seconds since the epoch.
        study: tag of its UID.
        p_value: of its score, in (0, 1]; None where it has no verdict of its own.
        score: pooled; None likewise.
        images: that were to be scored.
    """

    at: float
    study: str
    p_value: float | None
    score: float | None
    images: int


@dataclass(frozen=True)
class Status:
    """How a watch is; times in seconds since the epoch.

    Attributes:
        state: the state file.
        archive: address or folder.
        health: ``dead``, ``stuck`` (it lives, but gets no further) or ``well``.
        told: why, a sentence.
        version: of scrd; None where none of this version ever ran, and so with what follows.
        model: fingerprint.
        model_folder: where the model was.
        pid: of the last process.
        started: when it began.
        beat: its last sign of life.
        ended: when it ended; None while it runs, and where it was killed.
        contacted: when the archive last answered.
        trouble: what is wrong with the archive since then; empty where nothing is.
        in_hand: tag of the study in hand, None without.
        begun: when that was begun.
        since: from when on the following counts.
        processed: studies that were done, refused or failed, each time that they were.
        done: studies that were scored.
        flagged: of them.
        flagged_studies: those, the newest first, at most `FLAGGED`.
        refused: reason → how many.
        failed: reason → how many were given up.
        retried: when each study that has failed so far is tried next, and why it failed.
        waiting: studies in the queue, those included.
        oldest: since when the first of them waits, None without.
        arriving: studies that are not complete yet.
        median_seconds: a study, None without one; and so with what follows.
        p95_seconds: 95 % of the studies took no longer.
        free_bytes: of the disk, after the last study ever.
        last: when that was.
    """

    state: Path
    archive: str
    health: Health
    told: str
    version: str | None
    model: str | None
    model_folder: str | None
    pid: int | None
    started: float | None
    beat: float | None
    ended: float | None
    contacted: float | None
    trouble: str
    in_hand: str | None
    begun: float | None
    since: float
    processed: int
    done: int
    flagged: int
    flagged_studies: tuple[Flagged, ...]
    refused: dict[str, int]
    failed: dict[str, int]
    retried: tuple[tuple[float, str], ...]
    waiting: int
    oldest: float | None
    arriving: int
    median_seconds: float | None
    p95_seconds: float | None
    free_bytes: int | None
    last: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; ``docs/commands.md`` has the keys."""
        retried = [{"at": at, "reason": reason} for at, reason in self.retried]
        return {**asdict(self), "state": str(self.state), "retried": retried}


def find_states(places: Sequence[Path]) -> list[Path]:
    """The state files among files and in folders.

    Raises:
        ScrdError: a folder holds none, or cannot be read.
    """
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            found.append(place)
            continue
        try:
            files = sorted(path for path in place.iterdir() if path.is_file())
        except OSError as e:
            raise ScrdError(f"{place}: cannot be read: {e.strerror or e}") from e
        inside = [path for path in files if _readable_state(path)]
        if not inside:
            raise ScrdError(f"{place}: no state file of scrd watch is in this folder")
        found += inside
    return found


def _readable_state(path: Path) -> bool:
    try:
        return is_database(path) and is_state(path)
    except ScrdError:
        return False


def read_status(path: Path, since: float, now: float | None = None) -> Status:
    """Read how a watch is, while it may go on.

    Args:
        path: its state file; is not changed.
        since: from when on studies count, in seconds since the epoch.
        now: likewise, by default the clock's.

    Raises:
        HistoryError: it is no state file, or cannot be read.
    """
    now = time.time() if now is None else now
    with reading(path) as db:
        db.row_factory = sqlite3.Row
        archive = db.execute("SELECT name FROM archive").fetchone()
        watcher = db.execute("SELECT * FROM watcher").fetchone()
        if archive is None or watcher is None:
            raise HistoryError(f"{path}: a state file of scrd watch, but damaged")
        counted = db.execute(
            "SELECT outcome, reason, flagged, seconds FROM history WHERE at >= ?", (since,)
        ).fetchall()
        flagged = db.execute(
            "SELECT at, study, p_value, score, images FROM history"
            " WHERE at >= ? AND outcome = 'done' AND flagged ORDER BY id DESC LIMIT ?",
            (since, FLAGGED),
        ).fetchall()
        queue = db.execute(
            "SELECT next_try, reason, since FROM studies WHERE status = 'queued' ORDER BY next_try"
        ).fetchall()
        (arriving,) = db.execute("SELECT COUNT(*) FROM arriving").fetchone()
        last = db.execute("SELECT at, free_bytes FROM history ORDER BY id DESC LIMIT 1").fetchone()
    health, told = _health(watcher, now)
    took = sorted(row["seconds"] for row in counted)
    done = [row for row in counted if row["outcome"] == "done"]
    return Status(
        state=path,
        archive=archive["name"],
        health=health,
        told=told,
        **{
            name: watcher[name]
            for name in ("version", "model", "model_folder", "pid", "started", "beat", "ended")
        },
        contacted=watcher["contacted"],
        trouble=watcher["trouble"] or "",
        in_hand=watcher["study"] if health != "dead" else None,
        begun=watcher["begun"] if health != "dead" else None,
        since=since,
        processed=len(counted),
        done=len(done),
        flagged=sum(row["flagged"] for row in done),
        flagged_studies=tuple(Flagged(*row) for row in flagged),
        refused=_reasons(counted, "refused"),
        failed=_reasons(counted, "failed"),
        retried=tuple((row["next_try"], row["reason"]) for row in queue if row["reason"]),
        waiting=len(queue),
        oldest=min((row["since"] for row in queue), default=None),
        arriving=arriving,
        median_seconds=statistics.median(took) if took else None,
        p95_seconds=took[-(len(took) // 20) - 1] if took else None,
        free_bytes=last["free_bytes"] if last else None,
        last=last["at"] if last else None,
    )


def _reasons(rows: Sequence[sqlite3.Row], outcome: str) -> dict[str, int]:
    """Reasons by how often they are given, the most frequent first."""
    given = Counter(_COUNT.sub("", row["reason"]) for row in rows if row["outcome"] == outcome)
    return dict(given.most_common())


def _health(watcher: sqlite3.Row, now: float) -> tuple[Health, str]:
    if watcher["started"] is None:
        return "dead", "no scrd watch of this version has run yet"
    if watcher["ended"] is not None:
        if watcher["why"]:
            return "dead", f"it ended: {watcher['why']}"
        if watcher["once"]:
            return "well", "it ran once and ended, as told"
        return "dead", "it was stopped"
    silent = now - watcher["beat"]
    if abs(silent) >= SILENT_SECONDS:
        return "dead", f"no sign of life for {silent:.0f} s, and it did not say that it ends"
    if watcher["begun"] is not None:
        hand = now - watcher["begun"]
        if hand >= STUDY_SECONDS:
            return "stuck", f"the study {watcher['study']} is in hand for {hand:.0f} s"
        return "well", "it lives, and a study is in hand"
    away = now - max(watcher["started"], watcher["contacted"] or 0.0)
    if away >= max(AWAY_SECONDS, 3 * watcher["poll_seconds"]):
        return "stuck", f"the archive has not answered for {away:.0f} s"
    return "well", "it lives"
