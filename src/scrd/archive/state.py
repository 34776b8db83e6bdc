"""What a watch knows, on disk: which studies wait, which are done, how far the archive was read.

Every step is one SQLite transaction, synced to disk, so that a process that is killed at any
moment goes on where it was. One process at a time may use a state file; any may read it meanwhile,
see :mod:`scrd.outputs.history_file`.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from filelock import FileLock, Timeout

from scrd.archive import schema
from scrd.dicom.uids import tag
from scrd.errors import ScrdError
from scrd.outputs.history import Found, keep

Outcome = Literal["done", "refused", "failed"]

NOTHING = Found()

log = logging.getLogger("scrd.watch")


class StateError(ScrdError):
    """A state file cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Arrival:
    """A study that is complete for now.

    Attributes:
        key: What the archive calls it.
        uid: Study Instance UID.
        fingerprint: Of its source images, equal as long as they are the same.
    """

    key: str
    uid: str
    fingerprint: str


@dataclass(frozen=True)
class Job:
    """A study whose turn it is.

    Attributes:
        key: What the archive calls it.
        uid: Study Instance UID.
        attempts: How often it was begun, this time included.
        stored: Fingerprints of the models whose results the archive holds from earlier times.
    """

    key: str
    uid: str
    attempts: int
    stored: tuple[str, ...] = ()


_NOT_OURS = (
    "not a state file of scrd watch, or damaged; move it away to begin anew, which scores again "
    "what the archive holds"
)


class State:
    """The state file of one watch, held until it is closed.

    Args:
        path: The file; made if it does not exist.
        name: The archive's address or folder.
        model: Fingerprint of the model: a study that was scored with another one is scored again
            when it arrives again.

    Raises:
        StateError: another process holds the file, it cannot be written, it belongs to another
            archive, or it is no state file.
    """

    def __init__(self, path: Path, *, name: str, model: str) -> None:
        self.path = path
        self.work = path.with_name(path.name + ".work")
        self.model = model
        self._lock = FileLock(f"{path}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._open(name)
        except Timeout:
            raise StateError(f"{path}: another scrd watch is using this state file") from None
        except sqlite3.DatabaseError as e:
            self.close()
            raise StateError(f"{path}: {_NOT_OURS} ({type(e).__name__})") from e
        except OSError as e:
            self.close()
            raise StateError(f"{path}: cannot be written ({e.strerror})") from e
        except StateError:
            self.close()
            raise

    def _open(self, name: str) -> None:
        # UIDs are nobody else's business
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(self.path, isolation_level=None)
        self._db.execute("PRAGMA synchronous = FULL")
        if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise StateError(f"{self.path}: {_NOT_OURS}")
        format_ = self._db.execute("PRAGMA user_version").fetchone()[0]
        if format_ == 0:
            if self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                raise StateError(f"{self.path}: {_NOT_OURS}")
            with self._transaction():
                schema.make(self._db, name)
        elif 0 < format_ < schema.FORMAT:
            with self._transaction():
                schema.take_over(self._db, format_)
            if format_ == 1:
                log.warning(
                    "%s: written by an older version, which did not see images that were "
                    "replaced: each study is scored once more when it is seen again",
                    self.path,
                )
        elif format_ != schema.FORMAT:
            raise StateError(
                f"{self.path}: state of format {format_}, this version of scrd reads "
                f"{schema.FORMAT}"
            )
        known = self._db.execute("SELECT name FROM archive").fetchone()
        self._db.execute("SELECT key FROM arriving UNION SELECT stored FROM studies LIMIT 1")
        if known is None:
            raise StateError(f"{self.path}: {_NOT_OURS}")
        if known[0] != name:
            raise StateError(
                f"{self.path}: belongs to {known[0]}, not to {name}; choose another file"
            )
        # with a log beside the file whoever reads and whoever writes do not wait for each other
        self._db.execute("PRAGMA journal_mode = WAL")

    @property
    def position(self) -> tuple[int, str]:
        """Sequence number of the last change that was read, 0 at the start, and what it was."""
        sequence, mark = self._db.execute("SELECT sequence, mark FROM archive").fetchone()
        return sequence, mark

    @property
    def arriving(self) -> tuple[str, ...]:
        """Keys of studies that were seen and were not complete then."""
        return tuple(key for (key,) in self._db.execute("SELECT key FROM arriving ORDER BY rowid"))

    @property
    def counts(self) -> dict[str, int]:
        """Status → number of studies."""
        rows = self._db.execute("SELECT status, COUNT(*) FROM studies GROUP BY status")
        return {status: count for status, count in rows}

    @property
    def flagged(self) -> int:
        """How many of the studies that are done are flagged."""
        query = "SELECT COUNT(*) FROM studies WHERE status = 'done' AND flagged"
        return int(self._db.execute(query).fetchone()[0])

    @property
    def of_other_models(self) -> int:
        """How many studies hold results of another model that this watch has stored."""
        query = "SELECT COUNT(*) FROM studies WHERE stored NOT IN ('', ?)"
        return int(self._db.execute(query, (self.model,)).fetchone()[0])

    def record(
        self,
        *,
        queue: Iterable[Arrival] = (),
        arriving: Iterable[str] = (),
        settled: Iterable[str] = (),
        position: tuple[int, str] | None = None,
    ) -> None:
        """Write down what was seen, in one transaction.

        Args:
            queue: Complete studies. One whose images and model are those of last time keeps its
                status; any other waits for its turn.
            arriving: Keys of studies that are not complete.
            settled: Keys of studies that are complete or gone.
            position: See :attr:`position`; None leaves it.
        """
        now = time.time()
        queued = []
        with self._transaction():
            for study in queue:
                changed = self._db.execute(
                    "INSERT INTO studies"
                    " (key, uid, fingerprint, model, status, next_try, updated, since)"
                    " VALUES (?, ?, ?, ?, 'queued', ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                    " fingerprint = excluded.fingerprint, model = excluded.model,"
                    " status = 'queued', attempts = 0, reason = '',"
                    " next_try = excluded.next_try, updated = excluded.updated,"
                    " since = excluded.since"
                    " WHERE fingerprint <> excluded.fingerprint OR model <> excluded.model",
                    (study.key, study.uid, study.fingerprint, self.model, now, now, now),
                ).rowcount
                if changed:
                    queued.append(study.uid)
            self._db.executemany("DELETE FROM arriving WHERE key = ?", [(k,) for k in settled])
            self._db.executemany(
                "INSERT OR IGNORE INTO arriving VALUES (?)", [(k,) for k in arriving]
            )
            if position is not None:
                self._db.execute("UPDATE archive SET sequence = ?, mark = ?", position)
        for uid in queued:
            log.info("study %s: queued", tag(uid))

    def claim(self) -> Job | None:
        """The study that has waited longest, or None; that it was begun is on disk afterwards.

        It stays in the queue: whoever is killed finds it there.
        """
        now = time.time()
        with self._transaction():
            row = self._db.execute(
                "SELECT key, uid, attempts + 1, stored FROM studies"
                " WHERE status = 'queued' AND next_try <= ? ORDER BY next_try, rowid LIMIT 1",
                (now,),
            ).fetchone()
            if row is None:
                return None
            self._db.execute(
                "UPDATE studies SET attempts = attempts + 1, updated = ? WHERE key = ?",
                (now, row[0]),
            )
        key, uid, attempts, stored = row
        return Job(key, uid, attempts, tuple(stored.split()))

    def finish(
        self,
        key: str,
        outcome: Outcome,
        *,
        fingerprint: str | None = None,
        reason: str = "",
        flagged: bool = False,
        stored: bool | None = None,
        found: Found = NOTHING,
        seconds: float = 0.0,
    ) -> None:
        """Take a study out of the queue, and keep what came of it.

        Args:
            key: The study.
            outcome: What came of it.
            fingerprint: Of the images that were scored, where they were fetched.
            reason: Why it was refused or failed, without patient data.
            flagged: Whether something in it is.
            stored: Whether the archive now holds results of this model, and of no other one that
                this watch used; None where that is as it was.
            found: What was found in it.
            seconds: That it took, this last time.
        """
        models = None if stored is None else self.model * stored
        free = shutil.disk_usage(self.path.parent).free
        with self._transaction():
            row = self._db.execute("SELECT uid FROM studies WHERE key = ?", (key,)).fetchone()
            self._db.execute(
                "UPDATE studies SET status = ?, fingerprint = COALESCE(?, fingerprint), model = ?,"
                " reason = ?, flagged = ?, stored = COALESCE(?, stored), updated = ?"
                " WHERE key = ?",
                (outcome, fingerprint, self.model, reason, flagged, models, time.time(), key),
            )
            keep(
                self._db,
                study=tag(row[0]),
                model=self.model,
                outcome=outcome,
                reason=reason,
                flagged=flagged,
                found=found,
                seconds=seconds,
                free_bytes=free,
            )

    def retry(self, key: str, *, seconds: float, reason: str) -> None:
        """Leave a study in the queue, to be tried again in some seconds."""
        now = time.time()
        with self._transaction():
            self._db.execute(
                "UPDATE studies SET next_try = ?, reason = ?, updated = ? WHERE key = ?",
                (now + seconds, reason, now, key),
            )

    def put_back(self, key: str) -> None:
        """Put a study at the end of the queue as if it had not been begun."""
        now = time.time()
        with self._transaction():
            self._db.execute(
                "UPDATE studies SET attempts = attempts - 1, next_try = ?, updated = ?"
                " WHERE key = ?",
                (now, now, key),
            )

    def forget(self, key: str) -> None:
        """Drop a study that the archive does not hold any more."""
        with self._transaction():
            self._db.execute("DELETE FROM studies WHERE key = ?", (key,))

    def retry_failed(self) -> int:
        """Put all studies that failed back into the queue; returns how many."""
        now = time.time()
        with self._transaction():
            return self._db.execute(
                "UPDATE studies SET status = 'queued', attempts = 0, next_try = ?, updated = ?,"
                " since = ? WHERE status = 'failed'",
                (now, now, now),
            ).rowcount

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def close(self) -> None:
        """Let go of the file."""
        if hasattr(self, "_db"):
            with suppress(sqlite3.Error):  # another one reads it just now, or it is no database
                if self._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                    # at rest it is one file, that can be copied as it is
                    self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.close()
        self._lock.release()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK on any exception."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
