"""The parts of a running service, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scrd.serve.artist import Artist
from scrd.serve.audit import Audit
from scrd.serve.auth import Auth, Token, store_secret
from scrd.serve.drift import Drifts
from scrd.serve.events import Events
from scrd.serve.faults import where
from scrd.serve.jobs import Jobs
from scrd.serve.limits import Limits
from scrd.serve.marks import Marks
from scrd.serve.metrics import Metrics
from scrd.serve.models import Models
from scrd.serve.results import Results
from scrd.serve.retention import forget_old
from scrd.serve.store import Store
from scrd.serve.supervisor import Supervisor
from scrd.serve.watches import Watches

log = logging.getLogger("scrd.serve")
_EVERY = 600.0  # seconds between two looks for what is old, and for drift
_FIRST = 30.0  # seconds until the first one for drift: a start is to be quick


@dataclass(frozen=True)
class Settings:
    """What the service was started with.

    Attributes:
        models: names and folders.
        tokens: none lets everybody on this machine in.
        device: that scores.
        batch_size: images a batch.
        threads: that compute; None chooses.
        keep_days: how long jobs are kept.
        keep_gigabytes: how much of them is.
        secure: cookies go over TLS only.
        watches: state files of `scrd watch` to tell of, or folders that hold some.
        limits: bounds.
    """

    models: Sequence[tuple[str, Path]]
    tokens: Sequence[Token] = ()
    device: str = "auto"
    batch_size: int = 16
    threads: int | None = None
    keep_days: float = 30.0
    keep_gigabytes: float = 50.0
    secure: bool = False
    watches: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)


class Service:
    """What the routes work with.

    Raises:
        ScrdError: what is told to be a state file of `scrd watch` is none.
    """

    def __init__(self, store: Store, settings: Settings, on_fatal: Callable[[], None]) -> None:
        self.store, self.settings, self.limits = store, settings, settings.limits
        self.auth = Auth(list(settings.tokens), store_secret(store.folder))
        self.jobs, self.results = Jobs(store), Results(store)
        self.marks, self.audit = Marks(store), Audit(store)
        self.models, self.metrics = Models(store), Metrics()
        self.drifts = Drifts(store, self.models, self.metrics)
        self.watches = Watches(settings.watches)
        self.events = Events(self.limits.streams)
        self.artist = Artist(store.folder, self.limits.request_seconds)
        self.supervisor = Supervisor(
            store,
            self.jobs,
            self.models,
            self.metrics,
            self.limits,
            settings.models,
            self.events.publish,
            on_fatal,
            device=settings.device,
            batch_size=settings.batch_size,
            threads=settings.threads,
        )
        self.uploading = 0
        self.stopping = False
        self.started = time.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._watch()

    def _watch(self) -> None:
        watch = self.metrics.watch
        watch("queue_jobs", "Jobs that wait or are scored", lambda: self.jobs.waiting().jobs)
        watch("queue_bytes", "Bytes of their uploads", lambda: self.jobs.waiting().bytes)
        watch("disk_free_bytes", "Of the disk of the store", self.store.free_bytes)
        watch("ready", "1 where images are taken", lambda: float(not self.not_ready()))
        watch("worker_memory_bytes", "Of the process that scores", self._worker_memory)

    def _worker_memory(self) -> float:
        worker = self.supervisor.worker
        return 0.0 if worker is None else worker.memory_bytes()

    def not_ready(self) -> list[str]:
        """Why no image is taken now; empty where images are."""
        reasons = []
        if self.stopping:
            reasons.append("it is stopping")
        if not self.supervisor.alive:
            reasons.append("no model is loaded")
        if self.full():
            reasons.append("the queue is full")
        if self.store.free_bytes() < self.limits.free_bytes:
            reasons.append("the disk is nearly full")
        return reasons

    def full(self) -> bool:
        """Whether the queue takes nothing more."""
        waiting = self.jobs.waiting()
        return (
            waiting.jobs + self.uploading >= self.limits.waiting_jobs
            or waiting.bytes >= self.limits.waiting_bytes
        )

    def start(self) -> None:
        """Begin; in the event loop."""
        self.models.forget_others(self.settings.models)
        self.supervisor.start()
        self._tasks = [asyncio.create_task(work()) for work in (self._tidy, self._look)]

    def announce_stop(self) -> None:
        """Take nothing more, and end the streams, which would hold the server up."""
        self.stopping = True
        self.events.close()

    async def stop(self) -> None:
        """End; the job in hand is finished if that does not take too long."""
        self.announce_stop()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.supervisor.stop()
        await self.artist.close()
        await asyncio.to_thread(self.audit.close)

    async def _tidy(self) -> None:
        while True:
            try:
                await asyncio.to_thread(
                    forget_old,
                    self.store,
                    self.jobs,
                    days=self.settings.keep_days,
                    gigabytes=self.settings.keep_gigabytes,
                )
                await asyncio.to_thread(self.audit.forget)
            except Exception as error:
                log.error("old jobs could not be deleted: %s", where(error))
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        await asyncio.sleep(_FIRST)
        while True:
            try:
                await asyncio.to_thread(self.drifts.look)
                await asyncio.to_thread(self.watches.look)
            except Exception as error:
                log.error("drift could not be looked for: %s", where(error))
            await asyncio.sleep(_EVERY)

    def cached(self, job: str, name: str) -> Path:
        """Where what is drawn of a job is kept."""
        return self.store.results / job / "drawn" / name

    def drop(self, folder: Path) -> None:
        """Remove what was uploaded and not taken."""
        shutil.rmtree(folder, ignore_errors=True)
