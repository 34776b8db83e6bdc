"""The process that scores: loads models, reads jobs ahead, scores them, says what it found.

It writes to no database: what it leaves in ``work`` counts when the server has taken it over.
"""

from __future__ import annotations

import errno
import queue
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from scrd.data.cache import ImageStack, joined
from scrd.data.reading import read_info
from scrd.data.sample import even
from scrd.data.series import list_sources
from scrd.data.source import Source
from scrd.errors import ImageError, ScrdError
from scrd.export.loading import load_scorer
from scrd.scoring.scorer import Scorer
from scrd.serve.channel import Channel, Message
from scrd.serve.described import describe
from scrd.serve.faults import where
from scrd.serve.records import Result
from scrd.serve.report import Report
from scrd.system.allocator import reused_memory
from scrd.system.threads import thread_count, use_threads, wait_politely

_SAMPLE = 8  # images of a job that say which model knows it
_READERS = 4  # jobs that are read at the same time, at the most
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class _Read:
    """A job whose images are read: all of them, or the first batch of many.

    Attributes:
        report: what will be left of it.
        scorer: the version that answers.
        shadow: the version on trial.
        sources: its images.
        batches: of them; a tuple where there is one at the most.
    """

    report: Report
    scorer: Scorer
    shadow: Scorer | None
    sources: Sequence[Source]
    batches: Iterable[ImageStack]


_Turn = Message | Future[_Read | None]


class Worker:
    """Models by fingerprint, and the work on jobs.

    Jobs are read in threads while others are scored. Those of one model that are read when it
    is their turn are scored together, where a batch has room for them.
    """

    def __init__(self, channel: Channel, store: Path, device: str, batch_size: int) -> None:
        self._channel = channel
        self._store = store
        self._device = device
        self._batch_size = batch_size
        self._scorers: dict[str, Scorer] = {}
        self._turns: queue.SimpleQueue[_Turn] = queue.SimpleQueue()

    def run(self) -> None:
        """Do what the server says, in its order, for ever."""
        threading.Thread(target=self._listen, name="scrd-turns", daemon=True).start()
        turn: _Turn | None = None
        with reused_memory():  # across jobs: most are of one image
            while True:
                turn = self._do(turn or self._turns.get())

    def _listen(self) -> None:
        """Have jobs read as they come."""
        with ThreadPoolExecutor(min(_READERS, thread_count()), "scrd-job") as pool:
            while True:
                message = self._channel.next()
                if message["do"] == "score":
                    for job in message["jobs"]:
                        self._turns.put(pool.submit(self._read, job, message["models"]))
                else:
                    self._turns.put(message)

    def _do(self, turn: _Turn) -> _Turn | None:
        """Do what is next, with jobs behind it; returns what was taken from the queue too much."""
        if isinstance(turn, dict):
            if turn["do"] == "load":
                self.load(turn["name"], turn["folder"])
            else:
                self._scorers.pop(turn["fingerprint"], None)
            return None
        first = turn.result()
        if first is None:
            return None
        together, after = [first], None
        room = self._batch_size - len(first.sources)
        while room > 0 and after is None and not self._turns.empty():
            after = self._turns.get()
            if isinstance(after, Future) and after.done():
                job = after.result()
                if job is None:
                    after = None
                elif job.scorer is first.scorer and len(job.sources) <= room:
                    together.append(job)
                    room -= len(job.sources)
                    after = None
        self._score(together)
        return after

    def load(self, name: str, folder: str) -> None:
        """Load a model beside those that are there."""
        try:
            scorer = load_scorer(Path(folder), self._device)
            scorer.calibration.require(f"{folder}: a service answers with p-values")
            assert scorer.fingerprint is not None
            describe(self._store / "models", scorer)
            self._scorers[scorer.fingerprint] = scorer
        except Exception as error:
            told = str(error) if isinstance(error, ScrdError | OSError) else where(error)
            self._channel.tell(say="not loaded", name=name, folder=folder, reason=told)
        else:
            self._channel.tell(
                say="loaded",
                name=name,
                folder=folder,
                fingerprint=scorer.fingerprint,
                silence=scorer.calibration.silence,
            )

    def _read(
        self, job: Mapping[str, Any], models: Mapping[str, Mapping[str, str]]
    ) -> _Read | None:
        """Begin to read a job; None where nothing comes of it, which is said then.

        Args:
            job: its ``id``, ``names`` of its files, ``model`` that was asked for, and how many
                images it may have at the ``most``.
            models: name → ``active`` fingerprint and, of a model on trial, ``shadow``.
        """
        name = job["id"]
        if self._channel.resting.is_set():
            self._channel.tell(say="back", job=name)
            return None
        self._channel.tell(say="begun", job=name)
        try:
            folder = self._store / "uploads" / name
            listing = list_sources([folder / str(i) for i in range(len(job["names"]))])
            count = len(listing.sources)
            if count > job["most"]:
                raise ScrdError(f"{count} images, more than {job['most']} in one job")
            model = job["model"] or self._choose(listing.sources, models)
            if model not in models:
                raise ScrdError(f"there is no model {model} any more")
            scorer = self._scorers[models[model]["active"]]
            shadow = self._scorers.get(models[model].get("shadow", ""))
            batches = scorer.read(listing.sources, batch_size=self._batch_size)
            begun = tuple(islice(batches, 1))
            report = Report(self._channel, self._store, name, job["names"], model, listing)
            many = count > self._batch_size
            if not many:  # of many, further ones are read while they lie ready
                self._channel.tell(say="read", job=name)
            return _Read(
                report, scorer, shadow, listing.sources, chain(begun, batches) if many else begun
            )
        except Exception as error:
            self._fail(name, error)
            return None

    def _choose(self, sources: Sequence[Source], models: Mapping[str, Mapping[str, str]]) -> str:
        """The model that knows most of some images, then the one with the fewest doubts."""
        if len(models) == 1:
            return next(iter(models))
        infos = []
        for source in even(sources, _SAMPLE):
            try:
                infos.append(read_info(source))
            except ImageError:
                continue

        def strange(name: str) -> tuple[int, int]:
            contract = self._scorers[models[name]["active"]].contract
            found = [contract.check(info) for info in infos]
            return sum(bool(refusals) for refusals, _ in found), sum(len(d) for _, d in found)

        return min(models, key=strange)

    def _score(self, together: Sequence[_Read]) -> None:
        """Score jobs of one model: one, or as many as a batch has room for."""
        if self._channel.resting.is_set():
            for job in together:
                self._channel.tell(say="back", job=job.report.job)
            return
        self._channel.tell(say="scoring", jobs=[job.report.job for job in together])
        begun = time.perf_counter()
        found = self._at_once(together) if len(together) > 1 else None
        seconds = (time.perf_counter() - begun) / len(together)
        for i, job in enumerate(together):
            results = iter(found[i]) if found else job.scorer.answers(job.sources, job.batches)
            try:
                job.report.write(job.scorer, results, job.shadow, self._batch_size, seconds)
            except Exception as error:
                self._fail(job.report.job, error)
            else:
                self._channel.tell(say="done", job=job.report.job)

    def _at_once(self, together: Sequence[_Read]) -> list[list[Result]] | None:
        """Results of each job by one batch; None where that fails: each by itself tells whose."""
        sources = [source for job in together for source in job.sources]
        stacks = [stack for job in together for stack in job.batches]
        try:
            results = together[0].scorer.answers(sources, [joined(stacks)] if stacks else [])
            every = list(results)
        except Exception:
            return None
        left = iter(every)
        return [list(islice(left, len(job.sources))) for job in together]

    def _fail(self, job: str, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            self._channel.tell(say="back", job=job)
            return
        told = str(error) if isinstance(error, ScrdError) else where(error)
        self._channel.tell(say="failed", job=job, reason=told)


def main(store: str, device: str, batch_size: str, threads: str) -> None:
    """The process: ``python -m scrd.serve.worker STORE DEVICE BATCH_SIZE THREADS``."""
    channel = Channel()
    wait_politely()
    use_threads(int(threads) or None)
    Worker(channel, Path(store), device, int(batch_size)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
