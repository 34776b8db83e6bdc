"""Jobs: accepted once, scored in their turn, finished once."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scrd.serve.store import Store, sync_file, sync_folder

COLUMNS = (
    "id", "job", "place", "shadow", "model", "fingerprint", "name", "kind", "created", "score",
    "p_value", "flag", "refusal", "doubts", "images", "detail",
)  # fmt: skip
"""Of the table of results."""

Status = Literal["queued", "done", "failed"]


@dataclass(frozen=True)
class Job:
    """Images that were sent together.

    Attributes:
        id: random; says nothing of what was sent.
        owner: name of the token that sent it.
        model: that was asked for; None leaves the choice to the models' contracts.
        status: ``queued`` until it is done or failed, also while it is being scored.
        created: seconds since the epoch.
        ended: the same; None while it is queued.
        crashes: how often the worker died of it.
        reason: why it failed.
        notes: what else there is to say of its files, a sentence each.
        bytes: that were sent, unpacked.
        files: the names that were sent; file i lies in the job's folder as ``i``.
    """

    id: str
    owner: str
    model: str | None
    status: Status
    created: float
    ended: float | None
    crashes: int
    reason: str
    notes: tuple[str, ...]
    bytes: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What came of a job.

    Attributes:
        job: its name.
        results: rows of the table ``results``.
        notes: what else there is to say, a sentence each.
        work: the folder of its maps; moved when the job is finished.
    """

    job: str
    results: Sequence[dict[str, Any]]
    notes: Sequence[str]
    work: Path


@dataclass(frozen=True)
class Waiting:
    """What is queued, jobs in hand included.

    Attributes:
        jobs: how many.
        bytes: of their uploads.
    """

    jobs: int
    bytes: int


def new_id() -> str:
    """A name that nobody can guess: 128 random bits."""
    return secrets.token_hex(16)


class Jobs:
    """The jobs of a store. Every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._forget_strays()

    def _forget_strays(self) -> None:
        """Folders of uploads that were never accepted, and of results that never counted."""
        known = {row["id"] for row in self._store.rows("SELECT id FROM jobs")}
        done = {row["id"] for row in self._store.rows("SELECT id FROM jobs WHERE status = 'done'")}
        for place, kept in ((self._store.uploads, known), (self._store.results, done)):
            for folder in place.iterdir():
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)

    def begin(self) -> Path:
        """A folder for the files of a new job, empty.

        It is forgotten at the next start unless the job is accepted.

        Raises:
            OSError: the disk takes no more.
        """
        folder = self._store.uploads / new_id()
        folder.mkdir(mode=0o700)
        return folder

    def accept(
        self,
        folder: Path,
        names: Sequence[str],
        size: int,
        *,
        owner: str,
        model: str | None = None,
        key: str | None = None,
    ) -> Job:
        """Take a job; its bytes and its row are on the disk when this returns.

        Args:
            folder: of `begin`, with files ``0``, ``1``, ...
            names: what the client calls them.
            size: bytes of all of them.
            owner: name of the token.
            model: that was asked for.
            key: the client's own name for the job: the second time it returns the first job.

        Raises:
            OSError: the disk takes no more.
        """
        for path in folder.iterdir():
            sync_file(path)
        sync_folder(folder)
        sync_folder(self._store.uploads)
        try:
            with self._store.change() as db:
                db.execute(
                    "INSERT INTO jobs (id, key, owner, model, status, created, bytes, files)"
                    " VALUES (?, ?, ?, ?, 'queued', ?, ?, ?)",
                    (folder.name, key, owner, model, time.time(), size, json.dumps(list(names))),
                )
        except sqlite3.IntegrityError:
            earlier = self.by_key(key)
            if earlier is None:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return earlier
        return self.get(folder.name)

    def get(self, job: str) -> Job:
        """One job.

        Raises:
            KeyError: there is none of this name.
        """
        row = self._store.row("SELECT * FROM jobs WHERE id = ?", (job,))
        if row is None:
            raise KeyError(job)
        return _job(row)

    def by_key(self, key: str | None) -> Job | None:
        """The job that a client gave this name."""
        row = self._store.row("SELECT * FROM jobs WHERE key = ?", (key,))
        return None if row is None else _job(row)

    def next(self, count: int, beside: Sequence[str]) -> list[Job]:
        """The jobs whose turn it is; they stay in the queue, where whoever is killed finds them.

        Args:
            count: at most.
            beside: in hand already.
        """
        marks = ", ".join("?" * len(beside))
        rows = self._store.rows(
            f"SELECT * FROM jobs WHERE status = 'queued' AND id NOT IN ({marks})"  # noqa: S608
            " ORDER BY created, rowid LIMIT ?",
            (*beside, count),
        )
        return [_job(row) for row in rows]

    def waiting(self) -> Waiting:
        """How much is queued."""
        row = self._store.rows(
            "SELECT COUNT(*) AS jobs, COALESCE(SUM(bytes), 0) AS bytes FROM jobs"
            " WHERE status = 'queued'"
        )[0]
        return Waiting(row["jobs"], row["bytes"])

    def finish(self, done: Sequence[Done]) -> None:
        """Take jobs out of the queue with their results, all at once.

        One that was finished before is left as it was.
        """
        fresh = [one for one in done if self.get(one.job).status == "queued"]
        for one in done:
            if one not in fresh:
                shutil.rmtree(one.work, ignore_errors=True)
                continue
            for path in one.work.iterdir():
                sync_file(path)
            sync_folder(one.work)
            place = self._store.results / one.job
            # left by a server that was killed before the row was written
            shutil.rmtree(place, ignore_errors=True)
            os.rename(one.work, place)
        sync_folder(self._store.results)
        with self._store.change() as db:
            for one in fresh:
                db.execute(
                    "UPDATE jobs SET status = 'done', ended = ?, notes = ? WHERE id = ?",
                    (time.time(), json.dumps(list(one.notes)), one.job),
                )
                db.executemany(
                    f"INSERT INTO results ({', '.join(COLUMNS)})"  # noqa: S608
                    f" VALUES ({', '.join('?' * len(COLUMNS))})",
                    [[row[column] for column in COLUMNS] for row in one.results],
                )

    def fail(self, job: str, reason: str) -> None:
        """Give a job up."""
        with self._store.change() as db:
            db.execute(
                "UPDATE jobs SET status = 'failed', ended = ?, reason = ?"
                " WHERE id = ? AND status = 'queued'",
                (time.time(), reason, job),
            )

    def crashed(self, jobs: Sequence[str]) -> list[Job]:
        """Note that the worker died with these jobs in hand; returns them as they are now."""
        with self._store.change() as db:
            db.executemany(
                "UPDATE jobs SET crashes = crashes + 1 WHERE id = ?", [(job,) for job in jobs]
            )
        return [self.get(job) for job in jobs]

    def failed(self, since: float) -> list[Job]:
        """The jobs that failed since a time, the newest first, at most 20."""
        rows = self._store.rows(
            "SELECT * FROM jobs WHERE status = 'failed' AND ended >= ?"
            " ORDER BY ended DESC LIMIT 20",
            (since,),
        )
        return [_job(row) for row in rows]

    def delete(self, job: str) -> None:
        """Forget a job, its results and its files; marks stay."""
        with self._store.change() as db:
            db.execute("DELETE FROM results WHERE job = ?", (job,))
            db.execute("DELETE FROM jobs WHERE id = ?", (job,))
        for place in (self._store.uploads, self._store.results):
            shutil.rmtree(place / job, ignore_errors=True)


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        owner=row["owner"],
        model=row["model"],
        status=row["status"],
        created=row["created"],
        ended=row["ended"],
        crashes=row["crashes"],
        reason=row["reason"],
        notes=tuple(json.loads(row["notes"])),
        bytes=row["bytes"],
        files=tuple(json.loads(row["files"])),
    )
