"""Keeps one worker alive and busy: hands it jobs, takes its results over, starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scrd.errors import ScrdError
from scrd.serve.child import Child
from scrd.serve.faults import where
from scrd.serve.jobs import Done, Job, Jobs, new_id
from scrd.serve.limits import Limits
from scrd.serve.metrics import Metrics
from scrd.serve.models import Models
from scrd.serve.store import Store

log = logging.getLogger("scrd.serve")

Event = dict[str, Any]
_LONGEST_PAUSE = 30.0


class Supervisor:
    """The worker's life.

    Attributes:
        progress: job in hand → images done and images in all.
        worker: the process, where one runs.
        fatal: why a model that the service was started with cannot be loaded.
    """

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        models: Models,
        metrics: Metrics,
        limits: Limits,
        wanted: Sequence[tuple[str, Path]],
        publish: Callable[[Event], None],
        on_fatal: Callable[[], None],
        *,
        device: str = "auto",
        batch_size: int = 16,
        threads: int | None = None,
    ) -> None:
        self.progress: dict[str, tuple[int, int]] = {}
        self.worker: Child | None = None
        self.fatal = ""
        self._on_fatal, self._ever = on_fatal, False
        self._store, self._jobs, self._models = store, jobs, models
        self._metrics, self._limits, self._publish = metrics, limits, publish
        self._wanted = list(wanted)
        self._arguments = (device, str(batch_size), str(threads or 0))
        self._given: dict[str, Job] = {}  # to the worker
        self._begun: dict[str, float] = {}  # by it, in order
        self._loading: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._finished: list[str] = []  # by the worker, and not yet counted
        self._taking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._useful = False  # the worker that runs has done a job
        self._rate = 0.0  # images a second, of late

    @property
    def alive(self) -> bool:
        """Whether the worker runs and every model that was asked for is loaded."""
        return self.worker is not None and bool(self._models.table()) and not self._loading

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    def wait_seconds(self) -> int:
        """How long until a full queue has room, roughly."""
        behind = sum(max(1, of - done) for done, of in self.progress.values())
        return int(min(max(1.0, behind / self._rate if self._rate else 5.0), 120.0))

    async def load(self, name: str, folder: Path) -> str:
        """Load a version beside those that are there; returns its fingerprint.

        Raises:
            ScrdError: it cannot be loaded, or the worker is away.
        """
        if self.worker is None:
            raise ScrdError("the worker is being started again: try later")
        key = (name, str(folder))
        future = self._loading.get(key)
        if future is None:
            future = self._loading[key] = asyncio.get_running_loop().create_future()
            await self.worker.tell(do="load", name=name, folder=str(folder))
        return await asyncio.shield(future)

    async def stop(self) -> None:
        """Let the job in hand end, if it does so in time; the others wait in the store."""
        self._stopping = True
        self._wake.set()
        if self.worker is not None:
            await self.worker.tell(do="rest")
        if self._task is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._task), self._limits.drain_seconds)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.worker is not None:
            await self.worker.end()
            self.worker = None

    async def _run(self) -> None:
        deaths = 0
        while not self._stopping:
            self._useful = False
            worker = await Child.start(
                "scrd.serve.worker", str(self._store.folder), *self._arguments
            )
            self.worker = worker
            why = ""
            try:
                await self._load_all(worker)
                why = await self._work(worker)
            except asyncio.CancelledError:
                await worker.end()
                raise
            except Exception as error:  # the service outlives whatever it is
                log.error("the supervisor failed: %s", where(error))
                why = "the server could not take its results over"
            how = await worker.end()
            if self._taking is not None:
                await asyncio.wait([self._taking])  # what was done before counts
            self.worker = None
            self._models.loaded.clear()
            if self._stopping:
                break
            await self._bury(why or f"the worker died ({how})")
            deaths = 0 if self._useful else deaths + 1
            await asyncio.sleep(min(0.1 * 2**deaths, _LONGEST_PAUSE))

    async def _load_all(self, worker: Child) -> None:
        remembered = [(v.name, v.folder) for v in self._models.versions()]
        wanted = list(dict.fromkeys([*self._wanted, *remembered]))
        for key in [(name, str(folder)) for name, folder in wanted]:
            self._loading[key] = asyncio.get_running_loop().create_future()
            # nobody may wait for it
            self._loading[key].add_done_callback(lambda f: f.cancelled() or f.exception())
            await worker.tell(do="load", name=key[0], folder=key[1])

    async def _work(self, worker: Child) -> str:
        """Until the worker is dead or stopped; returns what there is to say of its end."""
        hearing = asyncio.create_task(worker.hear())
        last = time.monotonic()
        try:
            while True:
                await self._fill(worker)
                if self._stopping and not self._given:
                    return ""
                waking = asyncio.create_task(self._wake.wait())
                done, _ = await asyncio.wait(
                    {hearing, waking}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED
                )
                waking.cancel()
                self._wake.clear()
                if hearing in done:
                    message = hearing.result()
                    if message is None:
                        return ""
                    hearing = asyncio.create_task(worker.hear())
                    last = time.monotonic()
                    await self._heard(message)
                elif not self._begun and not self._loading:
                    last = time.monotonic()
                allowed = (
                    self._limits.load_seconds if self._loading else self._limits.silence_seconds
                )
                if time.monotonic() - last > allowed:
                    return f"the worker said nothing for {allowed:g} s"
        finally:
            hearing.cancel()

    async def _fill(self, worker: Child) -> None:
        """Give the worker what it can work on, and a batch to go on with."""
        table = self._models.table()
        if self._stopping or self._loading or not table:
            return
        if self._store.free_bytes() < self._limits.free_bytes // 2:
            return
        room = 2 * self._limits.batch_images - sum(len(j.files) for j in self._given.values())
        # one that the worker died of before is scored alone
        if room <= self._limits.batch_images or any(j.crashes for j in self._given.values()):
            return
        found = await asyncio.to_thread(self._jobs.next, room, tuple(self._given))
        chosen: list[Job] = []
        for job in found:
            if job.crashes:
                if not chosen and not self._given:
                    chosen = [job]
                break
            if chosen and sum(len(j.files) for j in chosen) + len(job.files) > room:
                break
            chosen.append(job)
        if not chosen:
            return
        self._given |= {job.id: job for job in chosen}
        await worker.tell(
            do="score",
            models=table,
            jobs=[
                {
                    "id": job.id,
                    "names": job.files,
                    "model": job.model,
                    "most": self._limits.job_images,
                }
                for job in chosen
            ],
        )

    async def _heard(self, message: dict[str, Any]) -> None:
        say, job = message["say"], message.get("job", "")
        if say == "begun":
            self._begun[job] = time.monotonic()
            self.progress[job] = (0, len(self._given[job].files))
        elif say == "at":
            self.progress[job] = (message["done"], message["of"])
            self._tell(job, "queued")
        elif say == "done":
            self._take_over(job)
        elif say == "failed":
            await asyncio.to_thread(self._jobs.fail, job, message["reason"])
            self._metrics.failed(message["reason"])
            log.warning("job %s: failed: %s", job, message["reason"])
            self._release(job)
            self._tell(job, "failed")
        elif say == "back":
            self._release(job)
        elif say == "loaded":
            fingerprint = message["fingerprint"]
            await asyncio.to_thread(
                self._models.add,
                message["name"],
                Path(message["folder"]),
                fingerprint,
                message["silence"],
                given=(message["name"], Path(message["folder"])) in self._wanted,
            )
            log.info("model %s: version %s is loaded", message["name"], fingerprint[:12])
            self._settled(message, fingerprint)
        elif say == "not loaded":
            log.error("model %s: %s", message["name"], message["reason"])
            if (message["name"], Path(message["folder"])) in self._wanted and not self._ever:
                self.fatal = f"model {message['name']}: {message['reason']}"
                self._on_fatal()
            self._settled(message, ScrdError(message["reason"]))

    def _settled(self, message: dict[str, Any], outcome: str | ScrdError) -> None:
        future = self._loading.pop((message["name"], message["folder"]), None)
        if future is not None and not future.done():
            if isinstance(outcome, str):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        self._ever = self._ever or not self._loading
        self._publish({"event": "models"})

    def _take_over(self, job: str) -> None:
        """Have a job's results counted; those that come meanwhile are counted together."""
        self._finished.append(job)
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._take_all())

    async def _take_all(self) -> None:
        while self._finished:
            some, self._finished = self._finished, []
            begun = time.monotonic()
            try:
                reports = await asyncio.to_thread(self._count, some)
            except Exception as error:
                log.error("results could not be stored: %s", where(error))
                await self._again(
                    some, "its results could not be stored", isinstance(error, OSError)
                )
                await asyncio.sleep(1.0)
                continue
            for job, report in zip(some, reports, strict=True):
                images = sum(row["images"] for row in report["results"])
                if report["seconds"] > 0:
                    rate = images / report["seconds"]
                    self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate
                since = begun - self._begun.get(job, begun)
                self._metrics.finished(
                    report["results"],
                    report["model"],
                    queued=time.time() - self._given[job].created - since,
                    scoring=report["seconds"],
                    storing=time.monotonic() - begun,
                )
                self._useful = True
                self._release(job)
                self._tell(job, "done")
        self.wake()

    def _count(self, jobs: Sequence[str]) -> list[dict[str, Any]]:
        """Put results into the store; returns what the worker reported."""
        reports, done = [], []
        for job in jobs:
            work = self._store.work / job
            report: dict[str, Any] = json.loads((work / "report.json").read_text(encoding="utf-8"))
            (work / "report.json").unlink()
            reports.append(report)
            done.append(Done(job, _rows(job, report), report["notes"], work))
        self._jobs.finish(done)
        return reports

    def _release(self, job: str) -> None:
        self._given.pop(job, None)
        self._begun.pop(job, None)
        self.progress.pop(job, None)

    def _tell(self, job: str, status: str) -> None:
        done, of = self.progress.get(job, (0, 0))
        self._publish({"event": "job", "job": job, "status": status, "done": done, "of": of})

    async def _bury(self, why: str) -> None:
        """Put the jobs of a dead worker back; one that it died of too often fails."""
        self._metrics.worker_deaths.inc()
        hand = list(self._begun)
        log.error("%s; %d jobs in hand wait again", why, len(hand))
        await self._again(hand, why, False)
        self._given.clear()
        self._begun.clear()
        self.progress.clear()
        for future in self._loading.values():
            if not future.done():
                future.set_exception(ScrdError(why))
        self._loading.clear()

    async def _again(self, hand: Sequence[str], why: str, innocent: bool) -> None:
        """Put jobs back that were begun; one that this happened to too often fails.

        Args:
            hand: the jobs.
            why: it came to this.
            innocent: it was not their doing.
        """
        known = [] if innocent else await asyncio.to_thread(self._jobs.crashed, hand)
        for job in hand:
            shutil.rmtree(self._store.work / job, ignore_errors=True)
            self._release(job)
        for one in known:
            if one.crashes >= self._limits.crashes and one.status == "queued":
                reason = f"{why}; it was tried {one.crashes} times"
                await asyncio.to_thread(self._jobs.fail, one.id, reason)
                self._metrics.failed(reason)
                self._tell(one.id, "failed")


def _rows(job: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of results, those of a model on trial behind the others."""
    now = time.time()
    return [
        {
            **row,
            "id": new_id(),
            "job": job,
            "place": place,
            "shadow": int(shadow),
            "model": report["model"],
            "fingerprint": report[fingerprint],
            "created": now,
            "flag": None if row["flag"] is None else int(row["flag"]),
            "detail": json.dumps(row["detail"]),
        }
        for shadow, key, fingerprint in (
            (False, "results", "fingerprint"),
            (True, "shadow", "shadow_fingerprint"),
        )
        for place, row in enumerate(report[key])
    ]
