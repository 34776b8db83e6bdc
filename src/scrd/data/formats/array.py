"""Images that are no file: arrays in memory, read as pictures of their depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.data.formats.info import ImageInfo
from scrd.errors import ImageError

Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]


def inspect_array(name: Path, array: NDArray[Any]) -> ImageInfo:
    """What a header would say of (H, W) grey or (H, W, 3) red, green, blue.

    Raises:
        ImageError: Another shape, no pixels, or values that are no numbers.
    """
    if array.ndim not in (2, 3) or array.ndim == 3 and array.shape[2] != 3:
        raise ImageError(name, f"an image is (H, W) or (H, W, 3), not {array.shape}")
    if array.size == 0:
        raise ImageError(name, "no pixels")
    if array.dtype.kind not in "uif":
        raise ImageError(name, f"grey values cannot be of type {array.dtype}")
    height, width = array.shape[:2]
    return ImageInfo(width, height, 1 if array.ndim == 2 else 3, 8 * array.itemsize, "array")


def read_array(name: Path, array: NDArray[Any], max_pixels: int) -> Pixels:
    """The pixels: uint8 and uint16 as they are, whatever else is a number as float32.

    Raises:
        ImageError: As by `inspect_array`; too large; a value that is not finite.
    """
    inspect_array(name, array)
    if array.size > max_pixels:
        raise ImageError(name, f"{array.size} pixels; at most {max_pixels} are read")
    if array.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ImageError(name, "some values are not finite")
    return values
