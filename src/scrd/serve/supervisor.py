"""Keeps one worker alive and busy: hands it jobs, takes its results over, starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scrd.errors import ScrdError
from scrd.serve.child import Child
from scrd.serve.faults import where
from scrd.serve.harvest import Harvest
from scrd.serve.jobs import Job, Jobs
from scrd.serve.limits import Limits
from scrd.serve.loading import Loading
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
        self._store, self._jobs, self._models = store, jobs, models
        self._metrics, self._limits, self._publish = metrics, limits, publish
        self._arguments = (device, str(batch_size), str(threads or 0))
        self._given: dict[str, Job] = {}  # to the worker; those in ``progress`` it has begun
        self._read: set[str] = set()  # of those, which lie ready: no death is their doing
        self._loading = Loading(models, wanted, on_fatal)
        self._harvest = Harvest(store, jobs, self._counted, self._uncounted)
        self._wake = asyncio.Event()
        self._hungry = True  # there may be jobs that the worker could be given
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._useful = False  # the worker that runs has done a job
        self._rate = 0.0  # images a second, of late

    @property
    def fatal(self) -> str:
        """Why a model that the service was started with cannot be loaded; empty where all can."""
        return self._loading.fatal

    @property
    def alive(self) -> bool:
        """Whether the worker runs and every model that was asked for is loaded."""
        return self.worker is not None and bool(self._models.table()) and not self._loading

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """There is a new job, or room for one."""
        self._hungry = True
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
        return await asyncio.shield(await self._loading.ask(self.worker, name, folder))

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
        await self._harvest.settle()

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
                await self._loading.begin(worker)
                why = await self._work(worker)
            except asyncio.CancelledError:
                await worker.end()
                raise
            except Exception as error:  # the service outlives whatever it is
                log.error("the supervisor failed: %s", where(error))
                why = "the server could not take its results over"
            how = await worker.end()
            await self._harvest.settle()  # what was done before counts
            self.worker = None
            self._models.loaded.clear()
            if self._stopping:
                break
            await self._bury(why or f"the worker died ({how})")
            deaths = 0 if self._useful else deaths + 1
            await asyncio.sleep(min(0.1 * 2**deaths, _LONGEST_PAUSE))

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
                elif not self.progress and not self._loading:
                    last = time.monotonic()
                if not done:
                    self._hungry = True  # a second passed; the disk may have room again
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
        if not self._hungry or self._stopping or self._loading or not table:
            return
        if self._store.free_bytes() < self._limits.free_bytes // 2:
            return
        room = 2 * self._limits.batch_images - sum(len(j.files) for j in self._given.values())
        # one that the worker died of before is scored alone
        if room <= self._limits.batch_images or any(j.crashes for j in self._given.values()):
            return
        self._hungry = False  # what comes from now on says so
        found = await asyncio.to_thread(self._jobs.next, room, tuple(self._given))
        self._hungry = self._hungry or bool(found)
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
            self.progress[job] = (0, len(self._given[job].files))
        elif say == "read":
            self._read.add(job)
        elif say == "scoring":
            self._read.difference_update(message["jobs"])
        elif say == "at":
            self.progress[job] = (message["done"], message["of"])
            self._tell(job, "queued")
        elif say == "done":
            self._harvest.take(job)
        elif say == "failed":
            await asyncio.to_thread(self._jobs.fail, job, message["reason"])
            self._metrics.failed(message["reason"])
            log.warning("job %s: failed: %s", job, message["reason"])
            self._release(job)
            self._tell(job, "failed")
        elif say == "back":
            self._release(job)
        else:
            await self._loading.heard(message)
            self._publish({"event": "models"})

    def _counted(self, job: str, report: dict[str, Any], storing: float) -> None:
        """The results of a job are in the store."""
        images = sum(row["images"] for row in report["results"])
        if report["seconds"] > 0:
            rate = images / report["seconds"]
            self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate
        self._metrics.finished(
            report["results"],
            report["model"],
            queued=time.time() - storing - self._given[job].created - report["seconds"],
            scoring=report["seconds"],
            storing=storing,
        )
        self._useful = True
        self._release(job)
        self._tell(job, "done")
        self.wake()

    async def _uncounted(self, jobs: Sequence[str], innocent: bool) -> None:
        await self._again(jobs, "its results could not be stored", innocent)
        self.wake()

    def _release(self, job: str) -> None:
        self._hungry = True
        self._given.pop(job, None)
        self._read.discard(job)
        self.progress.pop(job, None)

    def _tell(self, job: str, status: str) -> None:
        done, of = self.progress.get(job, (0, 0))
        self._publish({"event": "job", "job": job, "status": status, "done": done, "of": of})

    async def _bury(self, why: str) -> None:
        """Put the jobs of a dead worker back; one that it died of too often fails."""
        self._metrics.worker_deaths.inc()
        hand = [job for job in self.progress if job not in self._read]
        log.error("%s; %d jobs in hand wait again", why, len(hand))
        await self._again(hand, why, False)
        self._given.clear()
        self._read.clear()
        self.progress.clear()
        self._loading.lost(why)

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
