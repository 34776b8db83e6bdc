"""Reading image files, and saying in one line why one cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from scrd.data.formats.array import inspect_array, read_array
from scrd.data.formats.guard import MAX_PIXELS
from scrd.data.formats.info import ImageInfo, Refused
from scrd.data.formats.pictures import decode, inspect, picture_format
from scrd.data.formats.unread import unread_format
from scrd.data.source import AnySource, Source, as_source
from scrd.errors import ImageError

_DICOM_MAGIC = slice(128, 132)
_NIFTI_MAGIC = slice(344, 348)
_NIFTI_2_MAGIC = slice(4, 8)
_GZIP = b"\x1f\x8b"
HEAD = 352  # bytes that tell every format


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
        source: A picture (PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, PNM) or DICOM file, or a
            frame of a DICOM or slice of a NIfTI file.
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

            return read_header(source.path, max_pixels=max_pixels).info
        if file_format == "NIfTI":
            from scrd.data.formats.nifti import read_nifti_info

            return read_nifti_info(source.path, max_pixels=max_pixels).info
        _only_frame(source)
        return inspect(stream, file_format, max_pixels)


def file_format(path: str | os.PathLike[str]) -> str:
    """Tell the format from the first bytes: "DICOM", "NIfTI", or that of a picture.

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
            closed = not os.access(path, os.R_OK | os.X_OK)
            raise Refused("no permission to look into it" if closed else "a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise Refused("not a regular file")
        if status.st_size == 0:
            raise Refused("the file is empty")
        with open(path, "rb") as stream:
            found = _told(stream, os.path.basename(path))
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


def _told(stream: BinaryIO, name: str) -> str:
    found = format_of(stream)
    if found is not None:
        return found
    stream.seek(0)
    unread = unread_format(stream.read(HEAD), name)
    if unread is not None:
        raise Refused(f"the format {unread} is not read: convert it to PNG, TIFF, DICOM or NIfTI")
    raise Refused("not a PNG, JPEG, TIFF, BMP, DICOM or NIfTI image")


def format_of(stream: BinaryIO) -> str | None:
    """The format of an open file, at its start, as `file_format` names it; None for any other.

    pydicom and nibabel are loaded only where they may be needed.
    """
    head = stream.read(HEAD)
    if head[_DICOM_MAGIC] == b"DICM":  # the 128 bytes before may be those of another format
        return "DICOM"
    picture = picture_format(head)
    if picture is not None:
        return picture
    first, second = head[_NIFTI_MAGIC], head[_NIFTI_2_MAGIC]
    stream.seek(0)
    if head.startswith(_GZIP) or first in (b"n+1\0", b"ni1\0") or second in (b"n+2\0", b"ni2\0"):
        from scrd.data.formats.nifti import is_nifti

        return "NIfTI" if is_nifti(stream) else None
    from scrd.data.formats.dicom import is_dicom

    return "DICOM" if is_dicom(stream) else None
