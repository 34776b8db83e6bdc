"""Takes over what the worker has done: several jobs in one transaction, while it goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from scrd.serve.faults import where
from scrd.serve.jobs import COLUMNS, Done, Jobs, new_id
from scrd.serve.store import Store

log = logging.getLogger("scrd.serve")

_PAUSE = 1.0  # seconds after results could not be stored


class Harvest:
    """Jobs that the worker has done, on their way into the store.

    Args:
        store: whose ``work`` holds what the worker left.
        jobs: of the store.
        counted: told a job, the worker's report and the seconds that storing took.
        lost: told jobs whose results could not be stored, and whether that was the disk's doing.
    """

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        counted: Callable[[str, dict[str, Any], float], None],
        lost: Callable[[Sequence[str], bool], Awaitable[None]],
    ) -> None:
        self._store, self._jobs = store, jobs
        self._counted, self._lost = counted, lost
        self._done: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def take(self, job: str) -> None:
        """Have the results of a job counted; those that come meanwhile are counted together."""
        self._done.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._take_all())

    async def settle(self) -> None:
        """Wait until all that was done counts, or is lost."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _take_all(self) -> None:
        while self._done:
            some, self._done = self._done, []
            begun = time.monotonic()
            try:
                reports = await asyncio.to_thread(self._count, some)
            except Exception as error:
                log.error("results could not be stored: %s", where(error))
                await self._lost(some, isinstance(error, OSError))
                await asyncio.sleep(_PAUSE)
                continue
            for job, report in zip(some, reports, strict=True):
                self._counted(job, report, time.monotonic() - begun)

    def _count(self, jobs: Sequence[str]) -> list[dict[str, Any]]:
        reports, done = [], []
        for job in jobs:
            work = self._store.work / job
            report: dict[str, Any] = json.loads((work / "report.json").read_text(encoding="utf-8"))
            reports.append(report)
            done.append(Done(job, rows_of(job, report), report["notes"], work))
        for one in done:
            (one.work / "report.json").unlink()
        self._jobs.finish(done)
        return reports


def rows_of(job: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of results, those of a model on trial behind the others."""
    now = time.time()
    found = []
    for shadow, key, fingerprint in (
        (0, "results", "fingerprint"),
        (1, "shadow", "shadow_fingerprint"),
    ):
        for place, row in enumerate(report[key]):
            full = row | {
                "id": new_id(),
                "job": job,
                "place": place,
                "shadow": shadow,
                "model": report["model"],
                "fingerprint": report[fingerprint],
                "created": now,
                "flag": None if row["flag"] is None else int(row["flag"]),
                "detail": json.dumps(row["detail"]),
            }
            found.append({column: full[column] for column in COLUMNS})
    return found
