"""Who did and read what: kept beside the results, told to those who manage the service."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

from scrd.serve.faults import where
from scrd.serve.store import Store

KEPT_SECONDS = 366 * 86400.0
_AT_ONCE = 500

log = logging.getLogger("scrd.serve")
Line = tuple[float, str, str, str, str, int]


class Audit:
    """The audit log of a store. It names tokens, actions and random names, and no patient.

    Lines are written by a thread of its own, some milliseconds after they are noted, so that
    nobody waits for them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.Queue[Line | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="scrd-audit", daemon=True)
        self._thread.start()

    def note(self, who: str, address: str, action: str, thing: str, status: int) -> None:
        """Note a line.

        Args:
            who: name of the token.
            address: where the request came from.
            action: method and route.
            thing: random name of the job or result.
            status: what was answered.
        """
        self._queue.put((time.time(), who, address, action, thing, status))

    def _write(self) -> None:
        ended = False
        while not ended:
            some = [self._queue.get()]
            while len(some) < _AT_ONCE and not self._queue.empty():
                some.append(self._queue.get())
            ended = None in some
            lines = [line for line in some if line is not None]
            try:
                with self._store.change(light=True) as db:
                    db.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", lines)
            except Exception as error:  # a full disk must not stop what is asked of the service
                log.error("%d lines of the audit log are lost: %s", len(lines), where(error))
            for _ in some:
                self._queue.task_done()

    def lines(self, since: float = 0.0, limit: int = 1000) -> list[dict[str, Any]]:
        """The newest first."""
        self._queue.join()
        rows = self._store.rows(
            "SELECT * FROM audit WHERE at >= ? ORDER BY at DESC, rowid DESC LIMIT ?", (since, limit)
        )
        return [dict(row) for row in rows]

    def forget(self) -> None:
        """Drop what is older than a year."""
        with self._store.change(light=True) as db:
            db.execute("DELETE FROM audit WHERE at < ?", (time.time() - KEPT_SECONDS,))

    def close(self) -> None:
        """Write what is left."""
        self._queue.put(None)
        self._thread.join()
