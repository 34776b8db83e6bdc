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

from scrd.data.formats.array import inspect_array, read_array
from scrd.data.formats.guard import MAX_PIXELS
from scrd.data.formats.info import ImageInfo, Refused
from scrd.data.formats.pictures import SIGNATURES, decode, inspect
from scrd.data.source import AnySource, Source, as_source
from scrd.errors import ImageError

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
_NIFTI_ENDINGS = (".nii", ".nii.gz")
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
_DICOM_MAGIC = slice(128, 132)
_NIFTI_MAGIC = slice(344, 348)
_NIFTI_2_MAGIC = slice(4, 8)
_GZIP = b"\x1f\x8b"
_HEAD = 352  # bytes that tell every format


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files below a folder.

    Links to folders are followed, each folder once. Hidden files and folders are left out, and
    with them the "._" files that macOS leaves on foreign disks.

    Args:
        folder: Where to look, at any depth.

    Returns:
        Sorted: the files with a usual suffix of pictures (`PICTURE_SUFFIXES`), NIfTI (``.nii``,
        ``.nii.gz``) or DICOM (``.dcm``, ``.dicom``, ``.ima``), in any case; and those with
        another suffix or none that begin as a DICOM file does, except a DICOMDIR.
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
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        found += [path for path in paths if _holds_image(path)]
    return sorted(found, key=Path.as_posix)


def _holds_image(path: Path) -> bool:
    name = path.name.lower()
    if path.suffix.lower() in PICTURE_SUFFIXES or name.endswith((*_NIFTI_ENDINGS, *_DICOM_ENDINGS)):
        return True
    if name == "dicomdir":
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return False
        with open(path, "rb") as stream:
            return stream.read(_DICOM_MAGIC.stop)[_DICOM_MAGIC] == b"DICM"
    except OSError:
        return False


def read_image(
    source: AnySource, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]:
    """Read one image in the depth in which it is stored; no grey value of a picture is rescaled.

    The format is told from the first bytes, not from the suffix. The type of the result depends
    on the type that the file declares and never on the values in it:

    - up to 8 bits: uint8. Grey of 1, 2 or 4 bits is spread to 0..255, as these formats define it.
    - up to 16 bits unsigned: uint16, in colour too.
    - signed, 32-bit and floating-point samples (TIFF): float32, where that is exact. 64-bit
      floats are rounded to float32.
    - DICOM: float32 for grey, in the unit that :class:`ImageInfo` calls ``values``, and uint8 for
      colour, see :mod:`scrd.data.formats.dicom_pixels`; NIfTI: float32, see
      :mod:`scrd.data.formats.nifti`.

    The EXIF or TIFF orientation is applied. Palettes are resolved to RGB. Alpha is dropped and
    the colour kept as it is stored, also where it is transparent. CMYK and YCCK are converted by
    Pillow without colour profiles. A TIFF whose zero means white is inverted.

    Args:
        source: A PNG, JPEG, TIFF, BMP or DICOM file, or a frame of a DICOM or slice of a NIfTI
            file.
        max_pixels: Larger images are refused by their header, before anything is decoded.

    Returns:
        (H, W) for grey or (H, W, 3) for RGB images; uint8, uint16 or float32.

    Raises:
        ImageError: The file cannot be read, is broken, too large, holds several pages or frames
            of which none was named, or its values do not fit the rules above. No other exception
            leaves this function.
    """
    source = as_source(source)
    if source.pixels is not None:
        return read_array(source.path, source.pixels, max_pixels)
    with _open(source.path) as (stream, file_format):
        if file_format == "DICOM":
            from scrd.data.formats.dicom import read_pixels

            return read_pixels(source.path, source.frame, max_pixels=max_pixels)
        if file_format == "NIfTI":
            from scrd.data.formats.nifti import read_slice

            return read_slice(source.path, source.frame, max_pixels=max_pixels)
        _only_frame(source)
        return decode(stream, file_format, max_pixels)


def read_info(source: AnySource, *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Read what an image file's header says, without decoding the pixels.

    Args:
        source: As for `read_image`.
        max_pixels: Larger images are refused, as by `read_image`.

    Returns:
        Size, channels, depth and format, and for DICOM and NIfTI what else they say.

    Raises:
        ImageError: The header cannot be read, or the image is too large or has several pages.
    """
    source = as_source(source)
    if source.pixels is not None:
        return inspect_array(source.path, source.pixels)
    with _open(source.path) as (stream, file_format):
        if file_format == "DICOM":
            from scrd.data.formats.dicom import read_header

            return read_header(source.path).info
        if file_format == "NIfTI":
            from scrd.data.formats.nifti import read_nifti_info

            return read_nifti_info(source.path).info
        _only_frame(source)
        return inspect(stream, file_format, max_pixels)


def file_format(path: str | os.PathLike[str]) -> str:
    """Tell the format from the first bytes: "PNG", "JPEG", "BMP", "TIFF", "DICOM" or "NIfTI".

    Raises:
        ImageError: There is no such file, or it is none of these.
    """
    with _open(path) as (_, found):
        return found


def _only_frame(source: Source) -> None:
    if source.frame not in (None, 0):
        raise Refused(f"no frame {source.frame}: the file holds one image")


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
            found = _told(stream)
            stream.seek(0)
            yield stream, found
    except ImageError:
        raise
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


def _told(stream: BinaryIO) -> str:
    """The format of an open file; pydicom and nibabel are loaded only where they may be needed."""
    head = stream.read(_HEAD)
    if head[_DICOM_MAGIC] == b"DICM":  # the 128 bytes before may be those of another format
        return "DICOM"
    for signature, picture in SIGNATURES.items():
        if head.startswith(signature):
            return picture
    first, second = head[_NIFTI_MAGIC], head[_NIFTI_2_MAGIC]
    if head.startswith(_GZIP) or first in (b"n+1\0", b"ni1\0") or second in (b"n+2\0", b"ni2\0"):
        from scrd.data.formats.nifti import is_nifti

        stream.seek(0)
        if is_nifti(stream):
            return "NIfTI"
    else:
        from scrd.data.formats.dicom import is_dicom

        stream.seek(0)
        if is_dicom(stream):
            return "DICOM"
    raise Refused("not a PNG, JPEG, TIFF, BMP, DICOM or NIfTI image")
