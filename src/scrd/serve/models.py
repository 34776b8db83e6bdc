"""Which models there are: by name, each in versions, of which one answers, one may be on trial."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scrd.errors import ConfigError
from scrd.serve.store import Store

Role = Literal["active", "shadow", "standby"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Version:
    """One version of a model.

    Attributes:
        name: of the model.
        fingerprint: SHA-256 of what is saved, in hexadecimal.
        folder: where it lies.
        role: ``active``: it answers. ``shadow``: it scores as well, and what it finds is kept
            and never shown as a verdict. ``standby``: it is loaded, and does nothing.
        since: seconds since the epoch.
    """

    name: str
    fingerprint: str
    folder: Path
    role: Role
    since: float


class Models:
    """The versions that a store knows, and which of them are loaded now.

    Attributes:
        loaded: fingerprint → why it can flag nothing, or None.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: list[Version] | None = None
        self.loaded: dict[str, str | None] = {}

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions that are known, or those of one name; the first one first."""
        known = self._known
        if known is None:
            rows = self._store.rows("SELECT * FROM models ORDER BY name, since, rowid")
            known = self._known = [
                Version(r["name"], r["fingerprint"], Path(r["folder"]), r["role"], r["since"])
                for r in rows
            ]
        return [v for v in known if name in (None, v.name)]

    def current(self) -> list[Version]:
        """The versions that are loaded."""
        return [v for v in self.versions() if v.fingerprint in self.loaded]

    def worth_loading(self) -> list[Version]:
        """Those that answer or are on trial, and of each name the one that rested last."""
        last = {v.name: v for v in sorted(self.versions(), key=lambda v: v.since) if _rests(v)}
        return [v for v in self.versions() if not _rests(v) or last[v.name] == v]

    def table(self) -> dict[str, dict[str, str]]:
        """Name → which fingerprint answers, and which is on trial; loaded ones only."""
        table: dict[str, dict[str, str]] = {}
        for version in self.current():
            if version.role != "standby":
                table.setdefault(version.name, {})[version.role] = version.fingerprint
        return {name: roles for name, roles in table.items() if "active" in roles}

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._store.change() as db:
            yield db
        self._known = None

    def add(
        self, name: str, folder: Path, fingerprint: str, silence: str | None, *, given: bool
    ) -> None:
        """Know a version that was loaded.

        Args:
            name: of the model.
            folder: where it lies.
            fingerprint: of the version.
            silence: why it can flag nothing.
            given: when the service was started: a version that is new to the store answers then.
        """
        self.loaded[fingerprint] = silence
        with self._changing() as db:
            known = db.execute(
                "SELECT 1 FROM models WHERE name = ? AND fingerprint = ?", (name, fingerprint)
            ).fetchone()
            if known:
                db.execute(
                    "UPDATE models SET folder = ? WHERE name = ? AND fingerprint = ?",
                    (str(folder), name, fingerprint),
                )
                return
            if given:
                _rest(db, name, "active")
            db.execute(
                "INSERT INTO models VALUES (?, ?, ?, ?, ?)",
                (name, fingerprint, str(folder), "active" if given else "standby", time.time()),
            )

    def assign(self, name: str, fingerprint: str, role: Role) -> None:
        """Let a version answer, try it, or let it rest.

        What answered before rests then, ready to be called back.

        Raises:
            KeyError: it is not loaded.
            ValueError: the one that answers cannot rest or be on trial: let another answer first.
        """
        versions = {v.fingerprint: v for v in self.current() if v.name == name}
        if fingerprint not in versions:
            raise KeyError(fingerprint)
        if versions[fingerprint].role == "active" and role != "active":
            raise ValueError("this version answers now: let another one answer first")
        with self._changing() as db:
            if role != "standby":
                _rest(db, name, role)
            db.execute(
                "UPDATE models SET role = ?, since = ? WHERE name = ? AND fingerprint = ?",
                (role, time.time(), name, fingerprint),
            )

    def forget_others(self, wanted: Sequence[tuple[str, Path]]) -> None:
        """Know no name that is not served any more, and no version that is gone."""
        names = {name for name, _ in wanted}
        with self._changing() as db:
            for version in self.versions():
                if version.name not in names or not version.folder.is_dir():
                    db.execute(
                        "DELETE FROM models WHERE name = ? AND fingerprint = ?",
                        (version.name, version.fingerprint),
                    )


def _rests(version: Version) -> bool:
    return version.role == "standby"


def _rest(db: sqlite3.Connection, name: str, role: Role) -> None:
    db.execute(
        "UPDATE models SET role = 'standby', since = ? WHERE name = ? AND role = ?",
        (time.time(), name, role),
    )


def parse_models(given: Sequence[str]) -> list[tuple[str, Path]]:
    """Names and folders of what was given as ``FOLDER`` or ``NAME=FOLDER``.

    Raises:
        ConfigError: a name that could not stand in an address, or a folder that is not there.
    """
    found = []
    for text in given:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals else text)
        name = name if equals else path.resolve().name
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{text}: the model's name {name!r} may hold letters, digits, dots, dashes and "
                "underscores, at most 64: give one as NAME=FOLDER"
            )
        if not path.is_dir():
            raise ConfigError(f"{path}: no such model folder")
        found.append((name, path.resolve()))
    return found


def sibling(versions: Sequence[Version], folder: str) -> Path:
    """A folder beside those of a model, by its plain name.

    Args:
        versions: of the model.
        folder: a name, no path: a client chooses among what lies there, and nothing else.

    Raises:
        ConfigError: no plain name, or nothing of that name lies there.
    """
    if not _NAME.fullmatch(folder):
        raise ConfigError("the folder of a new version is a plain name, beside the old one")
    for parent in dict.fromkeys(version.folder.parent for version in versions):
        if (parent / folder).is_dir():
            return parent / folder
    raise ConfigError(f"there is no folder {folder} beside the model's")
