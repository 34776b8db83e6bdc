"""Finding and reading image files, and saying in one line why one cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from scrd.data.decoders import SIGNATURES, ImageInfo, Refused, decode, inspect
from scrd.errors import ScrdError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageError",
    "ImageInfo",
    "find_images",
    "read_image",
    "read_info",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
MAX_PIXELS = 200_000_000


class ImageError(ScrdError):
    """An image file that cannot be used.

    Attributes:
        path: The file.
        reason: Why, in a few words.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files below a folder.

    Links to folders are followed, each folder once. Hidden files and folders are left out, and
    with them the "._" files that macOS leaves on foreign disks.

    Args:
        folder: Where to look, at any depth.

    Returns:
        The files whose suffix, in any case, is in `IMAGE_SUFFIXES`, sorted.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
        ]
    return sorted(found, key=Path.as_posix)


def read_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]:
    """Read one image in the depth in which it is stored; no grey value is rescaled.

    The format is told from the first bytes, not from the suffix. The type of the result depends
    on the type that the file declares and never on the values in it:

    - up to 8 bits: uint8. Grey of 1, 2 or 4 bits is spread to 0..255, as these formats define it.
    - up to 16 bits unsigned: uint16, in colour too.
    - signed, 32-bit and floating-point samples (TIFF): float32, where that is exact. 64-bit
      floats are rounded to float32.

    The EXIF or TIFF orientation is applied. Palettes are resolved to RGB. Alpha is dropped and
    the colour kept as it is stored, also where it is transparent. CMYK and YCCK are converted by
    Pillow without colour profiles. A TIFF whose zero means white is inverted.

    Args:
        path: A PNG, JPEG, TIFF or BMP file.
        max_pixels: Larger images are refused by their header, before anything is decoded.

    Returns:
        (H, W) for grey or (H, W, 3) for RGB images; uint8, uint16 or float32, stored values.

    Raises:
        ImageError: The file cannot be read, is broken, too large, holds several pages or frames,
            or its values do not fit the rules above. No other exception leaves this function.
    """
    with _open(path) as (stream, file_format):
        return decode(stream, file_format, max_pixels)


def read_info(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Read what an image file's header says, without decoding the pixels.

    Args:
        path: A PNG, JPEG, TIFF or BMP file.
        max_pixels: Larger images are refused, as by `read_image`.

    Returns:
        Size, channels, depth and format.

    Raises:
        ImageError: The header cannot be read, or the image is too large or has several pages.
    """
    with _open(path) as (stream, file_format):
        return inspect(stream, file_format, max_pixels)


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, str]]:
    """Open a file, tell its format, and turn whatever goes wrong into an `ImageError`."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise Refused("a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise Refused("not a regular file")
        if status.st_size == 0:
            raise Refused("the file is empty")
        with open(path, "rb") as stream:
            start = stream.read(8)
            stream.seek(0)
            for signature, file_format in SIGNATURES.items():
                if start.startswith(signature):
                    yield stream, file_format
                    return
        raise Refused("not a PNG, JPEG, TIFF or BMP image")
    except Refused as error:
        raise ImageError(path, str(error)) from error
    except FileNotFoundError as error:
        raise ImageError(path, "no such file") from error
    except PermissionError as error:
        raise ImageError(path, "no permission to read it") from error
    except MemoryError as error:
        raise ImageError(path, "not enough memory to decode it") from error
    # Decoders raise nearly everything on broken bytes: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        cut_off = any(word in text.lower() for word in ("truncated", "failed to read"))
        raise ImageError(path, f"{'truncated' if cut_off else 'broken'}: {text[:200]}") from error
