"""What was done, study by study and image by image, as two tables of an SQLite file.

They belong to the state file of a watch, which writes them; :mod:`scrd.outputs.history_file` reads
them. Studies are named by the tag of their UID: nothing here names a patient.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scrd.data.covariates import Covariates

DAYS = 90
"""How long at most a study is kept, in days."""
IMAGES = 200_000
"""How many images are kept at most. Where either is passed, the older half goes at once: for
`scrd monitor` a stream then begins anew, and that must not happen often."""

HISTORY_TABLES = (
    """CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,           -- seconds since the epoch
        study TEXT NOT NULL,        -- tag of its UID
        model TEXT NOT NULL,        -- fingerprint
        outcome TEXT NOT NULL,
        reason TEXT NOT NULL,
        flagged INTEGER NOT NULL,   -- whether something in it is
        images INTEGER NOT NULL,    -- that were to be scored
        unscored INTEGER NOT NULL,  -- of them
        score REAL,                 -- pooled
        p_value REAL,               -- of the pooled score
        seconds REAL NOT NULL,
        free_bytes INTEGER NOT NULL -- of the disk, afterwards
    )""",
    "CREATE INDEX happened ON history (at)",
    """CREATE TABLE images (
        entry INTEGER NOT NULL,     -- history.id
        study TEXT NOT NULL,        -- tag; of patients who share a UID each has its own
        score REAL,
        flag INTEGER NOT NULL,
        width INTEGER,              -- this and what follows: see Covariates
        height INTEGER,
        row_spacing REAL,
        column_spacing REAL,
        manufacturer TEXT,
        format TEXT,
        brightness REAL,
        contrast REAL,
        sharpness REAL
    )""",
)


@dataclass(frozen=True)
class Seen:
    """A scored image, as it is kept.

    Attributes:
        study: a name for its study that names nobody.
        score: larger is more anomalous.
        flag: whether it is flagged.
        covariates: where it comes from; None where that was not measured.
    """

    study: str
    score: float
    flag: bool
    covariates: Covariates | None


@dataclass(frozen=True)
class Found:
    """What was found in a study.

    Attributes:
        images: how many were to be scored.
        unscored: how many of them could not be.
        score: pooled over the study; None where there is no verdict. Of several patients under one
            UID, that of the smallest p-value.
        p_value: likewise, in (0, 1].
        seen: its scored images.
    """

    images: int = 0
    unscored: int = 0
    score: float | None = None
    p_value: float | None = None
    seen: Sequence[Seen] = ()


def keep(
    db: sqlite3.Connection,
    *,
    study: str,
    model: str,
    outcome: str,
    reason: str,
    flagged: bool,
    found: Found,
    seconds: float,
    free_bytes: int,
) -> None:
    """Add a study and its images, and let go of what is too old; to be called in a transaction.

    Args:
        db: of the file.
        study: tag of its UID.
        model: fingerprint of the model.
        outcome: what came of it.
        reason: why it was refused or failed, without patient data; empty where it was not.
        flagged: whether something in it is.
        found: what was found in it.
        seconds: that it took.
        free_bytes: of the disk, afterwards.
    """
    now = time.time()
    entry = db.execute(
        "INSERT INTO history (at, study, model, outcome, reason, flagged, images, unscored, score,"
        " p_value, seconds, free_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(now, study, model, outcome, reason, flagged, found.images, found.unscored),
            *(found.score, found.p_value, seconds, free_bytes),
        ),
    ).lastrowid
    db.executemany(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((entry, *row) for row in _rows(found.seen)),
    )
    _let_go(db, now)


def _rows(seen: Iterable[Seen]) -> Iterable[tuple[object, ...]]:
    for image in seen:
        told = image.covariates
        if told is None:
            yield (image.study, image.score, image.flag, *[None] * 9)
        else:
            yield (
                *(image.study, image.score, image.flag, told.width, told.height),
                *(told.spacing or (None, None)),
                *(told.manufacturer, told.format),
                *(told.brightness, told.contrast, told.sharpness),
            )


def _let_go(db: sqlite3.Connection, now: float) -> None:
    """Drop the older half where it is too much; else a look at both ends of the tables."""
    oldest = db.execute("SELECT at FROM history ORDER BY id LIMIT 1").fetchone()[0]
    first, last = db.execute(
        "SELECT (SELECT MIN(rowid) FROM images), (SELECT MAX(rowid) FROM images)"
    ).fetchone()
    count = 0 if first is None else last - first + 1
    day = 86_400
    if oldest >= now - DAYS * day and count <= IMAGES:
        return
    until = db.execute(
        "SELECT COALESCE(MAX(id), 0) FROM history WHERE at < ?", (now - DAYS / 2 * day,)
    ).fetchone()[0]
    if count > IMAGES:
        middle = db.execute(
            "SELECT entry FROM images WHERE rowid >= ? ORDER BY rowid LIMIT 1",
            (last - IMAGES // 2,),
        ).fetchone()[0]
        newest = db.execute("SELECT MAX(id) FROM history").fetchone()[0]
        until = max(until, min(middle, newest - 1))
    db.execute("DELETE FROM images WHERE entry <= ?", (until,))
    db.execute("DELETE FROM history WHERE id <= ?", (until,))
