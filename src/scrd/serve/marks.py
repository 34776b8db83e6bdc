"""Marks: what a person says of a result. They are exported, and never used to train unasked."""

from __future__ import annotations

import csv
import io
import time
from datetime import datetime, timezone
from typing import Any, Literal

from scrd.serve.store import Store

COLUMNS = (
    "result", "model", "fingerprint", "score", "p_value", "flag", "verdict", "comment", "who", "at"
)  # fmt: skip


class Marks:
    """The marks of a store. They outlive the results, without their names."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, result: str, verdict: Literal["right", "wrong"], comment: str, who: str) -> None:
        """Mark a result, in place of an earlier mark.

        Raises:
            KeyError: there is no such result.
        """
        with self._store.change() as db:
            found = db.execute(
                "INSERT OR REPLACE INTO marks SELECT id, model, fingerprint, score, p_value, flag,"
                " ?, ?, ?, ? FROM results WHERE id = ? AND shadow = 0",
                (verdict, comment, who, time.time(), result),
            )
            if not found.rowcount:
                raise KeyError(result)

    def remove(self, result: str) -> None:
        """Take a mark away."""
        with self._store.change() as db:
            db.execute("DELETE FROM marks WHERE result = ?", (result,))

    def csv(self) -> str:
        """All of them as CSV.

        A comment that a table program would take for a formula is led by an apostrophe.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self._store.rows("SELECT * FROM marks ORDER BY at"):
            cells: dict[str, Any] = dict(row)
            at = datetime.fromtimestamp(row["at"], timezone.utc)
            cells["at"] = at.isoformat(timespec="seconds")
            if cells["comment"][:1] in ("=", "+", "-", "@", "\t", "\r"):
                cells["comment"] = "'" + cells["comment"]
            writer.writerow(["" if cells[c] is None else cells[c] for c in COLUMNS])
        return stream.getvalue()
