"""Which files of a published data set show the same picture, or nearly the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrd.audit.duplicates import equal_groups, luminance, near_duplicates, thumbnail
from scrd.data.reading import read_image
from scrd.errors import ImageError
from scrd.system.progress import counting
from scrd.system.threads import thread_count


@dataclass(frozen=True)
class Copies:
    """What comparing all images of a set brought up; images are named by their index.

    Attributes:
        digests: For each image the SHA-256 of its file, hexadecimal; "" where it is unreadable.
        unreadable: Index → why the image cannot be read.
        equal: Sets of images with equal pixels, each ascending.
        near: Pairs of images of which one is made from the other, as in `scrd.audit.duplicates`;
            of a set of equal images only the first is in it.
    """

    digests: tuple[str, ...]
    unreadable: dict[int, str]
    equal: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, int], ...]


def find_copies(paths: Sequence[Path], *, progress: bool = False) -> Copies:
    """Read all images, one after the other on every core, and compare each with each.

    Args:
        paths: The image files.
        progress: Whether a bar on the terminal counts the images that were read.

    Returns:
        The copies. A file that cannot be read is reported and stops nothing.
    """
    read: list[_Read | ImageError] = []
    with (
        ThreadPoolExecutor(thread_count()) as pool,
        counting("reading", len(paths), progress) as advance,
    ):
        for result in pool.map(_read, paths):
            read.append(result)
            advance(len(read))
    images = {index: image for index, image in enumerate(read) if isinstance(image, _Read)}
    sound = list(images)
    equal = [
        tuple(sound[k] for k in group)
        for group in equal_groups([image.pixels for image in images.values()])
    ]
    repeated = {index for group in equal for index in group[1:]}
    distinct = [index for index in sound if index not in repeated]
    small = [images[index].small for index in distinct]
    with counting("looking for copies", None, progress):
        pairs = near_duplicates(np.stack(small)) if small else []
    return Copies(
        digests=tuple(image.file if isinstance(image, _Read) else "" for image in read),
        unreadable={
            k: image.reason for k, image in enumerate(read) if isinstance(image, ImageError)
        },
        equal=tuple(equal),
        near=tuple((distinct[pair.first], distinct[pair.second]) for pair in pairs),
    )


@dataclass(frozen=True)
class _Read:
    """What is kept of an image: digests of file and pixels, and the thumbnail (64, 64) float32."""

    file: str
    pixels: bytes
    small: NDArray[np.float32]


def _read(path: Path) -> _Read | ImageError:
    try:
        pixels = read_image(path)
        content = path.read_bytes()
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(path, f"cannot be read: {error.strerror}")
    header = f"{pixels.dtype} {pixels.shape}".encode()
    return _Read(
        file=hashlib.sha256(content).hexdigest(),
        pixels=hashlib.sha256(header + pixels.tobytes()).digest(),
        small=thumbnail(luminance(pixels)),
    )
