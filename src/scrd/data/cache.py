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
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scrd.data.preprocess import Preprocessing, prepare
from scrd.data.reading import ImageError, read_image


@dataclass(frozen=True)
class ImageStack:
    """The readable ones of some images, ready for the model.

    Attributes:
        images: (N, C, S, S) float32 as `prepare` returns them.
        index: For each of the N images its position in the paths that were asked for.
        source_sizes: For each of the N images the rows and columns of its file.
        failures: The images that could not be read, in order.
    """

    images: Tensor
    index: tuple[int, ...]
    source_sizes: tuple[tuple[int, int], ...]
    failures: tuple[ImageError, ...]


def load_images(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    memory_limit: int,
    folder: Path | None = None,
    workers: int = 4,
    on_progress: Callable[[int], None] | None = None,
) -> ImageStack:
    """Decode and prepare each image once and keep them all.

    Args:
        paths: The files.
        preprocessing: How images become input.
        memory_limit: Bytes up to which the stack is held in memory. A larger one lies in a
            nameless file that vanishes with the stack, even when the process is killed.
        folder: Where that file is made; the system's folder for temporary files by default.
        workers: Threads that decode.
        on_progress: Called with the number of images done, after each.

    Returns:
        The readable images, in the order of the paths.

    Raises:
        OSError: The stack fits neither into the memory limit nor on the disk.
    """
    side = preprocessing.image_size
    channels = 1 if preprocessing.intensity.channels == "grey" else 3
    shape = (len(paths), channels, side, side)
    images = _allocate(shape, memory_limit, folder)
    index: list[int] = []
    sizes: list[tuple[int, int]] = []
    failures: list[ImageError] = []
    for done, result in enumerate(_prepared(paths, preprocessing, workers)):
        if isinstance(result, ImageError):
            failures.append(result)
        else:
            images[len(index)] = result[0]
            index.append(done)
            sizes.append(result[1])
        if on_progress is not None:
            on_progress(done + 1)
    return ImageStack(images[: len(index)], tuple(index), tuple(sizes), tuple(failures))


def iter_batches(
    paths: Iterable[Path], preprocessing: Preprocessing, *, batch_size: int, workers: int = 4
) -> Iterator[ImageStack]:
    """Decode and prepare images batch by batch, reading ahead by a bounded number.

    Args:
        paths: The files, however many.
        preprocessing: How images become input.
        batch_size: Paths a batch; it holds fewer images where some cannot be read, and none
            where none can.
        workers: Threads that decode.

    Yields:
        The batches, in the order of the paths, whose `index` counts from the first path of all.
    """
    side = preprocessing.image_size
    channels = 1 if preprocessing.intensity.channels == "grey" else 3
    results = enumerate(_prepared(paths, preprocessing, workers))
    while batch := list(islice(results, batch_size)):
        read = [(place, result) for place, result in batch if not isinstance(result, ImageError)]
        yield ImageStack(
            images=torch.stack([image for _, (image, _) in read])
            if read
            else torch.empty(0, channels, side, side),
            index=tuple(place for place, _ in read),
            source_sizes=tuple(size for _, (_, size) in read),
            failures=tuple(result for _, result in batch if isinstance(result, ImageError)),
        )


_Result = tuple[Tensor, tuple[int, int]] | ImageError


def _prepared(
    paths: Iterable[Path], preprocessing: Preprocessing, workers: int
) -> Iterator[_Result]:
    """Prepare images in threads, in order, at most four for each worker ahead of the reader."""
    source = iter(paths)
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="scrd-read")
    try:
        for path in islice(source, 4 * max(1, workers)):
            waiting.append(pool.submit(_prepare_file, path, preprocessing))
        while waiting:
            result = waiting.popleft().result()
            for path in islice(source, 1):
                waiting.append(pool.submit(_prepare_file, path, preprocessing))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_file(path: Path, preprocessing: Preprocessing) -> _Result:
    try:
        pixels = read_image(path)
    except ImageError as error:
        return error
    return prepare(pixels, preprocessing), (pixels.shape[0], pixels.shape[1])


def _allocate(shape: tuple[int, ...], memory_limit: int, folder: Path | None) -> Tensor:
    needed = 4 * math.prod(shape)
    if needed <= memory_limit:
        return torch.empty(shape, dtype=torch.float32)
    place = folder or Path(tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OSError(
            f"{place}: the prepared images need {needed / 1e9:.1f} GB, more than the memory limit "
            f"of {memory_limit / 1e9:.1f} GB and than the {free / 1e9:.1f} GB free on this disk"
        )
    with tempfile.TemporaryFile(dir=place) as file:
        if hasattr(os, "posix_fallocate"):  # else a full disk would end the process later
            os.posix_fallocate(file.fileno(), 0, needed)
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="r+", shape=shape))
