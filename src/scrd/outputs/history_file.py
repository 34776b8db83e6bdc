"""Reading what a watch did while it goes on: nothing is ever written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

from scrd.data.covariates import Covariates
from scrd.errors import ScrdError
from scrd.outputs.history import Seen

_MAGIC = b"SQLite format 3\0"
_OURS = frozenset({"archive", "studies"})
_KEPT = frozenset({"history", "images"})
_PATIENCE = 10.0  # seconds until a writer lets go


class HistoryError(ScrdError):
    """A state file cannot be read; the message names it and the cause."""


@dataclass(frozen=True)
class Kept:
    """A scored image of a study that was done.

    Attributes:
        entry: number of the time that its study was done, rising.
        place: among the images of that time, from 1.
        image: what is known of it.
    """

    entry: int
    place: int
    image: Seen


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database, by its first bytes.

    Raises:
        HistoryError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as e:
        raise HistoryError(f"{path}: cannot be read: {e.strerror or e}") from e


def is_state(path: Path) -> bool:
    """Whether a file is a state file of some watch, of this version or an older one."""
    try:
        with _connected(path) as db:
            return _tables(db) >= _OURS
    except (HistoryError, sqlite3.Error):
        return False


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A state file at one moment, while a watch may go on writing to it.

    Args:
        path: of the state file.

    Yields:
        A connection in a transaction that changes nothing.

    Raises:
        HistoryError: it is no state file, it is one of an older version, it is damaged, or cannot
            be read.
    """
    if not is_database(path):
        raise HistoryError(f"{path}: not a state file of scrd watch")
    try:
        with _connected(path) as db:
            tables = _tables(db)
            if not tables >= _OURS:
                raise HistoryError(f"{path}: a database, but not a state file of scrd watch")
            if not tables >= _KEPT:
                raise HistoryError(
                    f"{path}: written by an older version, which kept no history; scrd watch of "
                    "this version takes it over when it starts"
                )
            db.execute("BEGIN")
            yield db
    except sqlite3.Error as e:
        raise HistoryError(f"{path}: cannot be read: {e}") from e


def read_images(db: sqlite3.Connection, model: str) -> Iterator[Kept]:
    """The images that a model has scored, in the order of arrival.

    Args:
        db: see :func:`reading`.
        model: fingerprint.
    """
    entry = place = 0
    for row in db.execute(
        "SELECT images.* FROM images JOIN history ON history.id = entry"
        " WHERE model = ? AND images.score IS NOT NULL ORDER BY images.rowid",
        (model,),
    ):
        place = place + 1 if row[0] == entry else 1
        entry, study, score, flag, width, height, between_rows, between_columns, *rest = row
        told = None
        if None not in (width, *rest[2:]):
            spacing = None if between_rows is None else (between_rows, between_columns)
            told = Covariates(width, height, spacing, *rest)
        yield Kept(entry, place, Seen(study, score, bool(flag), told))


def models(db: sqlite3.Connection) -> tuple[str, ...]:
    """Fingerprints of the models that studies were done with."""
    return tuple(m for (m,) in db.execute("SELECT DISTINCT model FROM history"))


def unscored(db: sqlite3.Connection, model: str) -> int:
    """How many images a model could not score."""
    query = "SELECT COALESCE(SUM(unscored), 0) FROM history WHERE model = ?"
    return int(db.execute(query, (model,)).fetchone()[0])


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    address = f"file:{quote_from_bytes(os.fsencode(path.absolute()))}?mode=ro"
    db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=_PATIENCE)
    try:
        yield db
    finally:
        db.close()


def _tables(db: sqlite3.Connection) -> set[str]:
    return {n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
