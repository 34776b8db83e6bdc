"""Prepared images, decoded once: all of them in memory or on disk, or batch by batch."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrd.data.contract import Contract
from scrd.data.formats.info import ImageInfo
from scrd.data.intensity import Intensity, series_percentiles
from scrd.data.plausibility import Facts, measure, nothing
from scrd.data.preprocess import Preprocessing, prepare
from scrd.data.reading import read_image, read_info
from scrd.data.sample import even
from scrd.data.source import AnySource, Series, Source, as_source
from scrd.errors import ImageError
from scrd.system.threads import thread_count

_WINDOW_IMAGES = 32
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
        infos: For each of the N images what its header says; empty where that was not asked.
    """

    images: NDArray[np.float32]
    index: tuple[int, ...]
    source_sizes: tuple[tuple[int, int], ...]
    failures: tuple[ImageError, ...]
    doubts: tuple[tuple[str, ...], ...]
    facts: tuple[Facts, ...] = ()
    infos: tuple[ImageInfo | None, ...] = ()


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
    for done, result in enumerate(_prepared(sources, preprocessing, workers)):
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

    Yields:
        The batches, in the order of the sources, whose `index` counts from the first of all.
    """
    side = preprocessing.image_size
    channels = 1 if preprocessing.intensity.channels == "grey" else 3
    results = enumerate(_prepared(sources, preprocessing, workers, contract, any_kind))
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
            infos=tuple(result.info for _, result in read),
        )


class _Read(NamedTuple):
    image: NDArray[np.float32]
    size: tuple[int, int]
    facts: Facts
    doubts: tuple[str, ...]
    info: ImageInfo | None


def _prepared(
    sources: Iterable[AnySource],
    preprocessing: Preprocessing,
    workers: int | None,
    contract: Contract | None = None,
    any_kind: bool = False,
) -> Iterator[_Read | ImageError]:
    """Prepare images in threads, in order, at most four for each worker ahead of the reader."""
    waiting: deque[Future[_Read | ImageError]] = deque()
    workers = workers or min(_WORKERS, thread_count())
    pool = ThreadPoolExecutor(workers, thread_name_prefix="scrd-read")
    remaining = iter(sources)

    def submit(count: int) -> None:
        for source in islice(remaining, count):
            job = (as_source(source), preprocessing, contract, any_kind)
            waiting.append(pool.submit(_prepare_image, *job))

    try:
        submit(4 * workers)
        while waiting:
            result = waiting.popleft().result()
            submit(1)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_image(
    source: Source, preprocessing: Preprocessing, contract: Contract | None, any_kind: bool
) -> _Read | ImageError:
    intensity, series = preprocessing.intensity, source.series
    try:
        doubts: list[str] = []
        info = None
        if contract is not None:
            info = read_info(source)
            refusals, doubts = contract.check(info)
            if any_kind:
                doubts = refusals + doubts
            elif refusals:
                return ImageError(source.path, "not what the model knows: " + "; ".join(refusals))
        pixels = read_image(source)
        window = None
        if intensity.scope == "series" and series is not None:
            window = series.window(partial(measure_window, intensity=intensity))
    except ImageError as error:
        return error
    facts = measure(pixels, intensity, window)
    # a volume may well begin with slices of air, which belong to its picture
    if facts.constant and not any_kind and (series is None or len(series.places) == 1):
        return ImageError(source.path, nothing(facts))
    if contract is not None:
        doubts += contract.plausible.doubts(facts)
    image = prepare(pixels, preprocessing, window)
    return _Read(image, (pixels.shape[0], pixels.shape[1]), facts, tuple(doubts), info)


def measure_window(series: Series, intensity: Intensity) -> tuple[float, float]:
    """The window of a series, from at most 32 of its images, evenly spread.

    Args:
        series: The images.
        intensity: The rule that wants it, see `series_percentiles`.

    Raises:
        ImageError: None of them can be read; the error is that of the first.
    """
    chosen = even(series.sources, _WINDOW_IMAGES)
    failures: list[ImageError] = []

    def readable() -> Iterator[NDArray[Any]]:
        for source in chosen:
            try:
                yield read_image(source)
            except ImageError as error:
                failures.append(error)

    images = readable()
    first = next(images, None)
    if first is None:
        raise failures[0]
    return series_percentiles(itertools.chain([first], images), intensity)


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
