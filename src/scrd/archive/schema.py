"""The tables of a state file, and how a file of an older version becomes one of this."""

from __future__ import annotations

import sqlite3

from scrd.outputs.history import HISTORY_TABLES

FORMAT = 3

_WATCHER = (
    """CREATE TABLE watcher (        -- the last process, see scrd.archive.pulse; times in seconds
        model_folder TEXT,          -- since the epoch
        model TEXT,                 -- fingerprint
        version TEXT,               -- of scrd
        pid INTEGER,
        started REAL,
        beat REAL,                  -- last sign of life
        poll_seconds REAL,
        once INTEGER,
        study TEXT,                 -- tag of the study in hand
        begun REAL,                 -- when it was begun
        contacted REAL,             -- when the archive last answered
        trouble TEXT,               -- what it said since then instead
        ended REAL,
        why TEXT                    -- why it ended; empty where it was told to
    )""",
    "INSERT INTO watcher DEFAULT VALUES",
)

_TABLES = (
    """CREATE TABLE archive (
        name TEXT NOT NULL,         -- address or folder, without credentials
        sequence INTEGER NOT NULL,  -- last change that was read; 0 none
        mark TEXT NOT NULL          -- what that change was
    )""",
    "CREATE TABLE arriving (key TEXT PRIMARY KEY)",
    """CREATE TABLE studies (
        key TEXT PRIMARY KEY,       -- what the archive calls the study
        uid TEXT NOT NULL,          -- Study Instance UID
        fingerprint TEXT NOT NULL,  -- of the source images
        model TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('queued', 'done', 'refused', 'failed')),
        attempts INTEGER NOT NULL DEFAULT 0,
        next_try REAL NOT NULL,     -- seconds since the epoch
        reason TEXT NOT NULL DEFAULT '',
        updated REAL NOT NULL,
        since REAL NOT NULL DEFAULT 0,  -- when it was last queued
        flagged INTEGER NOT NULL DEFAULT 0,
        stored TEXT NOT NULL DEFAULT ''  -- models whose results the archive holds, with spaces
    )""",
    "CREATE INDEX waiting ON studies (status, next_try)",
    *HISTORY_TABLES,
    *_WATCHER,
)

_FROM_1 = (
    "ALTER TABLE studies ADD COLUMN flagged INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE studies ADD COLUMN stored TEXT NOT NULL DEFAULT ''",
    "UPDATE studies SET stored = model WHERE status = 'done'",
)
_FROM_2 = (
    "ALTER TABLE studies ADD COLUMN since REAL NOT NULL DEFAULT 0",
    "UPDATE studies SET since = updated",
    *HISTORY_TABLES,
    *_WATCHER,
)


def make(db: sqlite3.Connection, name: str) -> None:
    """Make the tables; to be called in a transaction.

    Args:
        db: of an empty file.
        name: of the archive.
    """
    _run(db, _TABLES)
    db.execute("INSERT INTO archive VALUES (?, 0, '')", (name,))


def take_over(db: sqlite3.Connection, older: int) -> None:
    """Make a file of an older format, 1 or 2, one of this; to be called in a transaction."""
    _run(db, (*(_FROM_1 if older == 1 else ()), *_FROM_2))


def _run(db: sqlite3.Connection, statements: tuple[str, ...]) -> None:
    for statement in (*statements, f"PRAGMA user_version = {FORMAT}"):
        db.execute(statement)
