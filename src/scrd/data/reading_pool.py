"""Images read by several processes, for a network that is faster than threads of one can read.

Threads take turns at everything that is Python; processes do not. What they prepare lies in memory
that all of them share, so that no image is sent through a pipe.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.data.prepared import Job, Read, prepare_image
from scrd.data.source import Source
from scrd.errors import ImageError, ScrdError

TOGETHER = 8
"""Images that a process is given at once."""
_AHEAD = 3  # tasks for each process

Told = tuple[Any, ...] | str
"""What a :class:`Read` has beside the image; or why it cannot be read."""

_job: Job
_memory: SharedMemory
_slots: NDArray[np.float32]


def prepared_elsewhere(
    sources: Sequence[Source], job: Job, processes: int
) -> Iterator[Read | ImageError]:
    """Read images in other processes.

    They are started anew ("spawn"), so that a program that asks for this guards what it does by
    ``if __name__ == "__main__"``.

    Args:
        sources: files, of no series.
        job: how they are read.
        processes: how many.

    Yields:
        As :func:`scrd.data.prepared.prepare_image` returns, in order.

    Raises:
        ScrdError: one of the processes died.
    """
    side = job.preprocessing.image_size
    channels = 1 if job.preprocessing.intensity.channels == "grey" else 3
    bytes_of_a_task = 4 * TOGETHER * channels * side * side
    tasks = max(1, min(_AHEAD * processes, _free_memory() // (2 * bytes_of_a_task)))
    shape = (tasks * TOGETHER, channels, side, side)
    memory = SharedMemory(create=True, size=4 * int(np.prod(shape)))
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(job, memory.name, shape),
    )
    try:
        slots = np.ndarray(shape, np.float32, memory.buf)
        waiting: deque[tuple[list[Source], int, Future[list[Told]]]] = deque()
        remaining = iter(sources)

        def submit(start: int) -> None:
            if some := list(islice(remaining, TOGETHER)):
                waiting.append((some, start, pool.submit(_read, some, start)))

        for task in range(tasks):
            submit(task * TOGETHER)
        while waiting:
            some, start, future = waiting.popleft()
            try:
                told = future.result()
            except BrokenProcessPool as e:
                raise ScrdError(f"a process that reads images died, at {some[0]} or after") from e
            images = slots[start : start + len(some)].copy()
            submit(start)
            for source, image, one in zip(some, images, told, strict=True):
                if isinstance(one, str):
                    yield ImageError(source.path, one)
                else:
                    yield Read(image, *one)
        del slots
    finally:
        pool.shutdown(cancel_futures=True)
        memory.close()
        memory.unlink()


def _free_memory() -> int:
    """Bytes that processes can share: who writes beyond them is killed, and containers have few."""
    place = Path("/dev/shm")  # noqa: S108 looked at only
    return shutil.disk_usage(place).free if place.is_dir() else sys.maxsize


def _begin(job: Job, name: str, shape: tuple[int, ...]) -> None:
    global _job, _memory, _slots
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    _job, _memory = job, SharedMemory(name)
    _slots = np.ndarray(shape, np.float32, _memory.buf)


def _read(sources: list[Source], start: int) -> list[Told]:
    told: list[Told] = []
    for slot, source in enumerate(sources, start):
        found = prepare_image(source, _job)
        if isinstance(found, ImageError):
            told.append(found.reason)
        else:
            _slots[slot] = found.image
            told.append(found[1:])
    return told
