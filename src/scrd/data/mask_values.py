"""What the values of a mask mean: which pixels are lesion, and what is unclear about it.

Zero is no lesion and all else is one, whatever the depth. That is not enough for masks that were
saved as JPEG or resized (their values are blurred), hold several labels, or keep the lesion in
their transparency.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from scrd.data.formats.info import Refused
from scrd.data.reading import file_format, read_image
from scrd.data.source import Source
from scrd.errors import ImageError

_LABELS = 16  # distinct values, at the most, of a mask that is not blurred
_BLURRED = 0.1  # of all pixels, at the most, between a quarter and three quarters of the range
_CONTRAST = 128  # of a JPEG's 255, at the least: 0 and 1 do not survive the compression
_SHOWN = 4  # values named in a doubt


class Mask(NamedTuple):
    """A mask as it lies in its file.

    Attributes:
        marked: (H, W) bool; of a volume (slices, H, W), as :mod:`scrd.data.formats.nifti` cuts it.
        affine: Of a volume, (4, 4), takes (column, row, slice, 1) to mm, LPS; else None.
        doubts: What is unclear about it, a sentence each.
    """

    marked: NDArray[np.bool_]
    affine: NDArray[np.float64] | None
    doubts: tuple[str, ...]


def read_mask(path: Path) -> Mask:
    """Read a mask from a picture, a DICOM image or a NIfTI volume.

    Raises:
        ImageError: It cannot be read, or nobody can tell what its values mean.
    """
    kind = file_format(path)
    try:
        if kind == "NIfTI":
            status = os.stat(path)
            return _volume(path, status.st_mtime_ns, status.st_size)
        pixels: NDArray[Any] = read_image(path)
        if pixels.ndim == 3 and pixels.dtype.kind == "f":
            pixels = pixels.max(axis=2)
        if kind == "DICOM":
            return Mask(*_told(pixels, lossy=False))
        return Mask(*_picture(path, pixels, lossy=kind == "JPEG"))
    except Refused as error:
        raise ImageError(path, f"the mask {error}") from None


@lru_cache(maxsize=2)
def _volume(path: Path, modified: int, size: int) -> Mask:
    """Read once for all slices; time and size tell a file that was replaced."""
    from scrd.data.formats.nifti import read_nifti_info

    found = read_nifti_info(path)
    voxels = np.stack([read_image(Source(path, k)) for k in range(found.slices)])
    marked, _, doubts = _told(voxels, lossy=False)
    return Mask(marked, found.affine, doubts)


def _picture(
    path: Path, pixels: NDArray[Any], *, lossy: bool
) -> tuple[NDArray[np.bool_], None, tuple[str, ...]]:
    """Look at palette and transparency, of which `read_image` tells nothing."""
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
            clear = turned.has_transparency_data
            indices = np.asarray(turned) if turned.mode == "P" and not clear else None
            alpha = np.asarray(turned.convert("RGBA").getchannel("A")) if clear else None
    except Exception:  # a TIFF that Pillow cannot open, and tifffile could
        return _told(pixels, lossy=lossy)
    if indices is not None and indices.any() and not pixels.any():
        raise Refused("has a palette of nothing but black")
    if alpha is None:
        found = _told(pixels, lossy=lossy)
        several = indices is not None and len(np.unique(indices)) > 2
        if several and not np.array_equal(found[0], indices != 0):
            raise Refused("marks other pixels by its palette than by its numbers")
        return found
    if not alpha.any():
        raise Refused("is transparent everywhere")
    if alpha.min() == alpha.max():
        return _told(pixels, lossy=lossy)
    seen = pixels.reshape(*alpha.shape, -1).max(axis=2)[alpha > 0] > 0
    if seen.all() or not seen.any():
        return _told(alpha, lossy=lossy)
    by_alpha, by_colour = _told(alpha, lossy=lossy), _told(pixels, lossy=lossy)
    if not np.array_equal(by_alpha[0], by_colour[0]):
        raise Refused("marks other pixels by its colours than by its transparency")
    return by_colour


def _told(pixels: NDArray[Any], *, lossy: bool) -> tuple[NDArray[np.bool_], None, tuple[str, ...]]:
    """Tell the lesion from the values.

    Args:
        pixels: (H, W), (H, W, 3) of colours, or (slices, H, W).
        lossy: Whether the values are only about those that were saved.

    Raises:
        Refused: The values are none of a mask; the sentence goes on from "the mask".
    """
    labels: NDArray[Any] = pixels
    if pixels.ndim == 3 and pixels.dtype.kind == "u":  # colours; of a volume they are floats
        labels = pixels.astype(np.int64) @ [1 << 32, 1 << 16, 1]
        pixels = pixels.max(axis=2)
    values = np.unique(labels)
    top = float(pixels.max())
    if not pixels.any():
        return np.zeros(pixels.shape, np.bool_), None, ()
    if float(pixels.min()) < -top / 2:
        raise Refused("holds negative values")
    if lossy or len(values) > _LABELS or values[0] < 0:
        return _sharpened(pixels, top, lossy=lossy), None, ()
    if values[0] > 0 and len(values) > 1:
        raise Refused(f"has no zero, and {len(values)} values: which of them is the lesion?")
    doubts: tuple[str, ...] = ()
    if len(values) > 2:
        shown = np.unique(pixels[pixels > 0])
        named = ", ".join(f"{value:g}" for value in shown[:_SHOWN].tolist())
        more = ", ..." if len(shown) > _SHOWN else ""
        doubts = (f"{len(values) - 1} labels (values {named}{more}): all of them count as lesion",)
    return labels > 0, None, doubts


def _sharpened(pixels: NDArray[Any], top: float, *, lossy: bool) -> NDArray[np.bool_]:
    """Half of the highest value and more is lesion, if few values lie in between."""
    if lossy and top < _CONTRAST:
        raise Refused(f"is a JPEG whose values reach {top:g} of 255: too low to tell the lesion")
    between = float(np.mean((pixels > top / 4) & (pixels < 3 * top / 4)))
    high = float(np.mean(pixels >= 3 * top / 4))
    if between > min(_BLURRED, 2 * high):
        raise Refused("holds many values between none and its highest, as a picture does")
    marked: NDArray[np.bool_] = pixels >= top / 2
    return marked
