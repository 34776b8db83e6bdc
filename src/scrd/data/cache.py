"""Prepared images, decoded once: all of them in memory or on disk, or batch by batch."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrd.data.contract import Contract
from scrd.data.covariates import Covariates
from scrd.data.plausibility import Facts
from scrd.data.prepared import Job, Read, prepare_image
from scrd.data.preprocess import Preprocessing
from scrd.data.reading_pool import prepared_elsewhere
from scrd.data.source import AnySource, as_source
from scrd.errors import ImageError
from scrd.system.threads import thread_count

_WORKERS = 4


@dataclass(frozen=True)
class ImageStack:
    """The readable ones of some images, ready for the model.

    Attributes:
        images: (N, C, S, S) float32 as `prepare` returns them.
        index: For each of the N images its position in the paths that were asked for.
        source_sizes: For each of the N images the rows and columns of its file.
        failures: The images that could not be read, in order.
        doubts: For each of the N images what speaks against its being of the training images'
            kind, see :class:`scrd.data.contract.Contract`.
        facts: For each of the N images what is plain to see in it.
        covariates: For each of the N images where it comes from; empty where that was not asked.
    """

    images: NDArray[np.float32]
    index: tuple[int, ...]
    source_sizes: tuple[tuple[int, int], ...]
    failures: tuple[ImageError, ...]
    doubts: tuple[tuple[str, ...], ...]
    facts: tuple[Facts, ...] = ()
    covariates: tuple[Covariates | None, ...] = ()


def joined(stacks: Sequence[ImageStack]) -> ImageStack:
    """One stack of several, each of which holds all of some images, in order."""
    index: list[int] = []
    before = 0
    for stack in stacks:
        index += [before + place for place in stack.index]
        before += len(stack.index) + len(stack.failures)
    return ImageStack(
        np.concatenate([stack.images for stack in stacks]),
        tuple(index),
        *(
            tuple(chain.from_iterable(getattr(stack, name) for stack in stacks))
            for name in ("source_sizes", "failures", "doubts", "facts", "covariates")
        ),
    )


def load_images(
    sources: Sequence[AnySource],
    preprocessing: Preprocessing,
    *,
    memory_limit: int,
    folder: Path | None = None,
    workers: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ImageStack:
    """Decode and prepare each image once and keep them all.

    Args:
        sources: The images.
        preprocessing: How images become input.
        memory_limit: Bytes up to which the stack is held in memory. A larger one lies in a
            nameless file that vanishes with the stack, even when the process is killed.
        folder: Where that file is made; the system's folder for temporary files by default.
        workers: Threads that decode; by default those that compute, but at most four.
        on_progress: Called with the number of images done, after each.

    Returns:
        The readable images, in the order of the sources.

    Raises:
        OSError: The stack fits neither into the memory limit nor on the disk.
    """
    side = preprocessing.image_size
    channels = 1 if preprocessing.intensity.channels == "grey" else 3
    shape = (len(sources), channels, side, side)
    images = allocate(shape, memory_limit, folder)
    index: list[int] = []
    sizes: list[tuple[int, int]] = []
    failures: list[ImageError] = []
    facts: list[Facts] = []
    for done, result in enumerate(_prepared(sources, Job(preprocessing), workers)):
        if isinstance(result, ImageError):
            failures.append(result)
        else:
            images[len(index)] = result.image
            index.append(done)
            sizes.append(result.size)
            facts.append(result.facts)
        if on_progress is not None:
            on_progress(done + 1)
    return ImageStack(
        images[: len(index)],
        tuple(index),
        tuple(sizes),
        tuple(failures),
        ((),) * len(index),
        tuple(facts),
    )


def iter_batches(
    sources: Iterable[AnySource],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    contract: Contract | None = None,
    any_kind: bool = False,
    workers: int | None = None,
    processes: int = 0,
) -> Iterator[ImageStack]:
    """Decode and prepare images batch by batch, reading ahead by a bounded number.

    Args:
        sources: The images, however many.
        preprocessing: How images become input.
        contract: What they must be like; one that it refuses counts as unreadable.
        any_kind: Instead, its refusals are doubts.
        batch_size: Images a batch; it holds fewer images where some cannot be read, and none
            where none can.
        workers: Threads that decode; by default those that compute, but at most four.
        processes: Processes that decode instead, for a network that is faster than threads are;
            see :func:`scrd.data.reading_pool.prepared_elsewhere`. 0 for threads. Images of a
            series, which share a window or a file, are decoded in threads all the same.

    Yields:
        The batches, in the order of the sources, whose `index` counts from the first of all.
    """
    side = preprocessing.image_size
    channels = 1 if preprocessing.intensity.channels == "grey" else 3
    job = Job(preprocessing, contract, any_kind)
    files = [as_source(source) for source in sources] if processes else []
    if files and all(s.series is None and s.pixels is None for s in files):
        results = enumerate(prepared_elsewhere(files, job, processes))
    else:
        results = enumerate(_prepared(files or sources, job, workers))
    while batch := list(islice(results, batch_size)):
        read = [(place, result) for place, result in batch if not isinstance(result, ImageError)]
        yield ImageStack(
            images=np.stack([result.image for _, result in read])
            if read
            else np.empty((0, channels, side, side), np.float32),
            index=tuple(place for place, _ in read),
            source_sizes=tuple(result.size for _, result in read),
            failures=tuple(result for _, result in batch if isinstance(result, ImageError)),
            doubts=tuple(result.doubts for _, result in read),
            facts=tuple(result.facts for _, result in read),
            covariates=tuple(result.covariates for _, result in read),
        )


def _prepared(
    sources: Iterable[AnySource], job: Job, workers: int | None
) -> Iterator[Read | ImageError]:
    """Prepare images in threads, in order, at most four for each worker ahead of the reader."""
    waiting: deque[Future[Read | ImageError]] = deque()
    workers = workers or min(_WORKERS, thread_count())
    pool = ThreadPoolExecutor(workers, thread_name_prefix="scrd-read")
    remaining = iter(sources)

    def submit(count: int) -> None:
        for source in islice(remaining, count):
            waiting.append(pool.submit(prepare_image, as_source(source), job))

    try:
        submit(4 * workers)
        while waiting:
            result = waiting.popleft().result()
            submit(1)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def allocate(
    shape: tuple[int, ...], memory_limit: int, folder: Path | None = None
) -> NDArray[np.float32]:
    """Make room for float32 numbers, in memory or in a nameless file.

    Args:
        shape: Of the array.
        memory_limit: Bytes up to which it is held in memory.
        folder: Where the file is made; the system's folder for temporary files by default.

    Returns:
        The array, whose content is undefined.

    Raises:
        OSError: It fits neither into the memory limit nor on the disk.
    """
    needed = 4 * math.prod(shape)
    if needed <= memory_limit:
        return np.empty(shape, np.float32)
    place = folder or Path(tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OSError(
            f"{place}: images or maps need {needed / 1e9:.1f} GB, more than the memory limit of "
            f"{memory_limit / 1e9:.1f} GB and than the {free / 1e9:.1f} GB free on this disk"
        )
    with tempfile.TemporaryFile(dir=place) as file:
        if hasattr(os, "posix_fallocate"):  # else a full disk would end the process later
            os.posix_fallocate(file.fileno(), 0, needed)
        return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)
