"""Who did and read what: kept beside the results, told to those who manage the service."""

from __future__ import annotations

import time
from typing import Any

from scrd.serve.store import Store

KEPT_SECONDS = 366 * 86400.0


class Audit:
    """The audit log of a store. It names tokens, actions and random names, and no patient."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, who: str, address: str, action: str, thing: str, status: int) -> None:
        """Write a line.

        Args:
            who: name of the token.
            address: where the request came from.
            action: method and route.
            thing: random name of the job or result.
            status: what was answered.
        """
        with self._store.change(light=True) as db:
            db.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
                (time.time(), who, address, action, thing, status),
            )

    def lines(self, since: float = 0.0, limit: int = 1000) -> list[dict[str, Any]]:
        """The newest first."""
        rows = self._store.rows(
            "SELECT * FROM audit WHERE at >= ? ORDER BY at DESC, rowid DESC LIMIT ?", (since, limit)
        )
        return [dict(row) for row in rows]

    def forget(self) -> None:
        """Drop what is older than a year."""
        with self._store.change(light=True) as db:
            db.execute("DELETE FROM audit WHERE at < ?", (time.time() - KEPT_SECONDS,))
