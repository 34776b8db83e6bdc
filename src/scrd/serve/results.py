"""Results: found, sorted, paged; what is shown of them."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from scrd.serve.store import Store

Sort = Literal["newest", "oldest", "score", "p_value", "name", "doubts"]
_ORDER = {
    "newest": "r.created DESC, r.rowid DESC",
    "oldest": "r.created, r.rowid",
    "score": "r.score IS NULL, r.score DESC, r.rowid",
    "p_value": "r.p_value IS NULL, r.p_value, r.rowid",
    "name": "r.name COLLATE NOCASE, r.rowid",
    "doubts": "r.doubts DESC, r.rowid",
}
_COLUMNS = (
    "r.id, r.job, r.model, r.fingerprint, r.name, r.kind, r.created, r.score, r.p_value, r.flag,"
    " r.refusal, r.doubts, r.images, m.verdict, m.comment"
)
_FROM = "FROM results r LEFT JOIN marks m ON m.result = r.id"


@dataclass(frozen=True)
class Filter:
    """Which results are wanted; None does not ask.

    Attributes:
        flag: flagged or not.
        refused: without a score or with one.
        doubted: with doubts or without.
        model: by this model.
        job: of this job.
        marked: ``right``, ``wrong``, ``any`` or ``none``.
        since: at or after, seconds since the epoch.
        name: a part of the name; a patient's, perhaps: it stands in no address.
        shadow: of models on trial.
    """

    flag: bool | None = None
    refused: bool | None = None
    doubted: bool | None = None
    model: str | None = None
    job: str | None = None
    marked: Literal["right", "wrong", "any", "none"] | None = None
    since: float | None = None
    name: str | None = None
    shadow: bool = False

    def where(self) -> tuple[str, tuple[object, ...]]:
        """As a condition of SQL, and its values."""
        parts: list[str] = ["r.shadow = ?"]
        values: list[object] = [int(self.shadow)]

        def ask(condition: str, *given: object) -> None:
            parts.append(condition)
            values.extend(given)

        if self.flag is not None:
            ask("r.flag = ?", int(self.flag))
        if self.refused is not None:
            ask(f"r.refusal IS {'NOT ' if self.refused else ''}NULL")
        if self.doubted is not None:
            ask("r.doubts > 0" if self.doubted else "r.doubts = 0")
        for column, value in (("model", self.model), ("job", self.job)):
            if value is not None:
                ask(f"r.{column} = ?", value)
        if self.marked in ("right", "wrong"):
            ask("m.verdict = ?", self.marked)
        elif self.marked is not None:
            ask(f"m.verdict IS {'NOT ' if self.marked == 'any' else ''}NULL")
        if self.since is not None:
            ask("r.created >= ?", self.since)
        if self.name:
            ask("instr(lower(r.name), lower(?)) > 0", self.name)
        return " AND ".join(parts), tuple(values)


class Results:
    """The results of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def page(
        self, wanted: Filter, sort: Sort = "newest", offset: int = 0, limit: int = 100
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many there are, and some of them in order."""
        where, values = wanted.where()
        rows = self._store.rows(
            f"SELECT {_COLUMNS} {_FROM} WHERE {where} ORDER BY {_ORDER[sort]} LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        total = self._store.rows(f"SELECT COUNT(*) AS n {_FROM} WHERE {where}", values)[0]["n"]
        return total, [_shown(row) for row in rows]

    def get(self, result: str) -> dict[str, Any]:
        """One result, with what is said of its images.

        Raises:
            KeyError: there is none of this name.
        """
        row = self._store.row(
            f"SELECT {_COLUMNS}, r.detail, r.shadow, r.place {_FROM} WHERE r.id = ?", (result,)
        )
        if row is None:
            raise KeyError(result)
        detail = json.loads(row["detail"])
        shown = _shown(row) | {"detail": detail, "shadow": bool(row["shadow"])}
        other = self._store.row(
            "SELECT id FROM results WHERE job = ? AND place = ? AND shadow = ?",
            (row["job"], row["place"], 1 - row["shadow"]),
        )
        return shown | {"counterpart": None if other is None else other["id"]}

    def of_job(self, job: str) -> list[dict[str, Any]]:
        """All results of a job, in the order of its files."""
        rows = self._store.rows(
            f"SELECT {_COLUMNS} {_FROM} WHERE r.job = ? AND r.shadow = 0 ORDER BY r.place", (job,)
        )
        return [_shown(row) for row in rows]

    def of_study(self, job: str, tag: str, shadow: bool) -> list[dict[str, Any]]:
        """What is said of the series of one study, in their order."""
        rows = self._store.rows(
            "SELECT detail FROM results WHERE job = ? AND shadow = ? ORDER BY place",
            (job, int(shadow)),
        )
        details = [json.loads(row["detail"]) for row in rows]
        return [d for d in details if d["study"] is not None and d["study"]["tag"] == tag]

    def p_values(self, model: str | None = None, last: int = -1) -> list[tuple[float, float]]:
        """The stream of p-values, the oldest first.

        Args:
            model: of this one alone.
            last: so many of the newest; all by default.

        Returns:
            When and p-value of each result with a score.
        """
        rows = self._store.rows(
            "SELECT created, p_value FROM results WHERE shadow = 0 AND p_value IS NOT NULL"
            " AND model = COALESCE(?, model) ORDER BY created DESC, rowid DESC LIMIT ?",
            (model, last),
        )
        return [(row["created"], row["p_value"]) for row in reversed(rows)]

    def counts(self, since: float) -> dict[str, int]:
        """How many there are since a time, how many flagged, refused and doubted."""
        row = self._store.rows(
            "SELECT COUNT(*) AS results, COALESCE(SUM(flag), 0) AS flagged,"
            " COALESCE(SUM(refusal IS NOT NULL), 0) AS refused,"
            " COALESCE(SUM(doubts > 0), 0) AS doubted"
            " FROM results WHERE shadow = 0 AND created >= ?",
            (since,),
        )[0]
        return dict(row)

    def refusals(self, since: float) -> list[tuple[str, int]]:
        """Why images were refused since a time, and how often."""
        rows = self._store.rows(
            "SELECT refusal, COUNT(*) AS n FROM results WHERE shadow = 0 AND refusal IS NOT NULL"
            " AND created >= ? GROUP BY refusal ORDER BY n DESC LIMIT 20",
            (since,),
        )
        return [(row["refusal"], row["n"]) for row in rows]

    def compared(self, model: str) -> list[dict[str, Any]]:
        """What answered beside what was on trial, for each result of a model that has both."""
        rows = self._store.rows(
            "SELECT a.id, a.score, a.p_value, a.flag, b.score AS shadow_score,"
            " b.p_value AS shadow_p_value, b.flag AS shadow_flag, b.fingerprint AS shadow,"
            " a.fingerprint FROM results a JOIN results b"
            " ON a.job = b.job AND a.place = b.place AND a.shadow = 0 AND b.shadow = 1"
            " WHERE a.model = ? ORDER BY a.created DESC LIMIT 5000",
            (model,),
        )
        return [dict(row) for row in rows]


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    mark = None
    if row["verdict"] is not None:
        mark = {"verdict": row["verdict"], "comment": row["comment"]}
    return {
        "id": row["id"],
        "job": row["job"],
        "model": row["model"],
        "fingerprint": row["fingerprint"],
        "name": row["name"],
        "kind": row["kind"],
        "created": row["created"],
        "score": row["score"],
        "p_value": row["p_value"],
        "flag": None if row["flag"] is None else bool(row["flag"]),
        "refusal": row["refusal"],
        "doubts": row["doubts"],
        "images": row["images"],
        "mark": mark,
    }
