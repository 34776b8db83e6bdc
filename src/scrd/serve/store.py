"""What the service keeps: one SQLite database and folders of files, for one server at a time.

==============  ============================================================================
``serve.sqlite``  jobs, results, marks, audit, models
``uploads/``    a folder a job: the bytes that were sent, under running numbers
``results/``    a folder a job: anomaly maps, and pictures that were drawn from them
``drift.json``  where the stream begins that is watched for drift, by model and version
``models/``     a file a model that was ever loaded: how its results are to be shown
``work/``       what is being written; emptied at the start
==============  ============================================================================

Names of files and UIDs may be a patient's: everything here can be read by its owner alone.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scrd.errors import ScrdError

_FORMAT = 1
_TABLES = (
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        key TEXT UNIQUE,            -- the client's own name for it, where it gave one
        owner TEXT NOT NULL,        -- name of the token that sent it
        model TEXT,                 -- that was asked for
        status TEXT NOT NULL CHECK (status IN ('queued', 'done', 'failed')),
        created REAL NOT NULL,      -- seconds since the epoch
        ended REAL,
        crashes INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        notes TEXT NOT NULL DEFAULT '[]',
        bytes INTEGER NOT NULL,
        files TEXT NOT NULL         -- the names that were sent
    )""",
    "CREATE INDEX waiting ON jobs (status, created)",
    """CREATE TABLE results (
        id TEXT PRIMARY KEY,
        job TEXT NOT NULL REFERENCES jobs (id),
        place INTEGER NOT NULL,     -- in its job
        shadow INTEGER NOT NULL,    -- 1: of a model on trial, never shown as a verdict
        model TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        created REAL NOT NULL,
        score REAL,
        p_value REAL,
        flag INTEGER,
        refusal TEXT,
        doubts INTEGER NOT NULL,
        images INTEGER NOT NULL,
        detail TEXT NOT NULL,       -- JSON: images, series, study
        UNIQUE (job, shadow, place)
    )""",
    "CREATE INDEX newest ON results (shadow, created)",
    "CREATE INDEX highest ON results (shadow, score)",
    """CREATE TABLE marks (
        result TEXT PRIMARY KEY,    -- outlives the result
        model TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        score REAL,
        p_value REAL,
        flag INTEGER,
        verdict TEXT NOT NULL CHECK (verdict IN ('right', 'wrong')),
        comment TEXT NOT NULL,
        who TEXT NOT NULL,
        at REAL NOT NULL
    )""",
    """CREATE TABLE audit (
        at REAL NOT NULL,
        who TEXT NOT NULL,
        address TEXT NOT NULL,
        action TEXT NOT NULL,
        object TEXT NOT NULL,
        status INTEGER NOT NULL
    )""",
    "CREATE INDEX happened ON audit (at)",
    """CREATE TABLE models (
        name TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        folder TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('active', 'shadow', 'standby')),
        since REAL NOT NULL,
        PRIMARY KEY (name, fingerprint)
    )""",
    f"PRAGMA user_version = {_FORMAT}",
)


class StoreError(ScrdError):
    """The store cannot be used; the message names it and says why."""


class Store:
    """The folder of one server, held until it is closed.

    Every change is one transaction, on the disk before it counts as done.

    Args:
        folder: made if it does not exist, for its owner alone.

    Raises:
        StoreError: another server holds it, it cannot be written, or it is no store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.uploads = self.folder / "uploads"
        self.results = self.folder / "results"
        self.models = self.folder / "models"
        self.work = self.folder / "work"
        self._mutex = threading.RLock()  # of those who write
        self._reader = threading.local()
        self._opened: list[tuple[sqlite3.Connection, AbstractContextManager[Any]]] = []
        self._lock = FileLock(self.folder / "serve.lock")
        file = self.folder / "serve.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock.acquire(timeout=0)
            shutil.rmtree(self.work, ignore_errors=True)
            for place in (self.uploads, self.results, self.models, self.work):
                place.mkdir(exist_ok=True, mode=0o700)
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            self._file = file
            self._db = self._connect(file)
            # of who read what, the last second may be lost with the power, but not with the process
            self._light = self._connect(file)
            self._light.execute("PRAGMA synchronous = NORMAL")
        except Timeout:
            raise StoreError(f"{folder}: another scrd serve is using this store") from None
        except sqlite3.DatabaseError as e:
            self.close()
            raise StoreError(f"{file}: not a store of scrd serve, or damaged ({e})") from e
        except OSError as e:
            self.close()
            raise StoreError(f"{folder}: cannot be written ({e.strerror})") from e
        except StoreError:
            self.close()
            raise

    def _connect(self, file: Path) -> sqlite3.Connection:
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=30)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        format_ = db.execute("PRAGMA user_version").fetchone()[0]
        if format_ == 0:
            if db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                raise StoreError(f"{file}: not a store of scrd serve")
            db.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                db.execute(statement)
            db.execute("COMMIT")
        elif format_ != _FORMAT:
            raise StoreError(
                f"{file}: a store of format {format_}, this version of scrd reads {_FORMAT}"
            )
        return db

    @contextmanager
    def change(self, *, light: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction; undone where the block raises.

        Args:
            light: kept when the process is killed, but perhaps not when the power fails.
        """
        db = self._light if light else self._db
        with self._mutex:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """What a query finds; waits for nobody who writes."""
        if not hasattr(self._reader, "db"):
            self._reader.db = self._connect(self._file)
            self._reader.db.execute("PRAGMA query_only = ON")
            self._reader.used = threading.Lock()
            with self._mutex:
                self._opened.append((self._reader.db, self._reader.used))
        with self._reader.used:
            found: list[sqlite3.Row] = self._reader.db.execute(query, values).fetchall()
        return found

    def row(self, query: str, values: tuple[object, ...] = ()) -> sqlite3.Row | None:
        """The first row that a query finds."""
        found = self.rows(query, values)
        return found[0] if found else None

    def free_bytes(self) -> int:
        """Of the disk that the store lies on."""
        return shutil.disk_usage(self.folder).free

    def close(self) -> None:
        """Let go of the folder, once what other threads are at is done: SQLite bears no less."""
        for name in ("_db", "_light"):
            if hasattr(self, name):
                self._opened.append((getattr(self, name), self._mutex))
        for db, used in self._opened:
            with used:
                db.close()
        self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sync_file(path: Path) -> None:
    """Have the content of a file on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
