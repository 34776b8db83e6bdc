"""Stored values and padding out of the words of uncompressed DICOM pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from scrd.data.formats.dicom_decoding import Format
from scrd.data.formats.dicom_elements import integers, is_empty, number
from scrd.data.formats.info import Refused

_FLOAT_PADDING = {4: "FloatPixelPadding", 8: "DoubleFloatPixelPadding"}


def stored_values(words: NDArray[Any], form: Format) -> NDArray[Any]:
    """Take the stored bits out of pixel words (PS3.5, 8.1.1); what lies beside them is dropped.

    Args:
        words: (H, W) or (H, W, 3), integers of ``form.allocated`` bits.
        form: whose ``stored`` bits end at its ``high`` bit.

    Returns:
        Values of the same shape and type.

    Raises:
        Refused: The stored bits are said to lie above bits that are in use.
    """
    below = form.high + 1 - form.stored
    if form.allocated < 8 or form.stored >= form.allocated:
        return words
    own, bits = _bits(words)
    if below and (bits & bits.dtype.type(2**below - 1)).any() and not form.overlays:
        raise Refused(
            f"pixels use the lowest {below} bits, which the high bit of the header leaves out"
        )
    # to the upper end and back again, which extends the sign
    upper = (bits << (form.allocated - 1 - form.high)).view(own.dtype)
    values: NDArray[Any] = upper >> (form.allocated - form.stored)
    return values


def check_beyond(
    words: NDArray[Any], values: NDArray[Any], empty: NDArray[np.bool_] | None, form: Format
) -> None:
    """Hold the stored bits that a header announces against the bits that are in use.

    Args:
        words: (H, W) or (H, W, 3), as they lie in the file.
        values: What :func:`stored_values` makes of them.
        empty: (H, W), True on padding, which may be any word.
        form: Of the pixels.

    Raises:
        Refused: Bits above the stored ones are used, by no overlay, sign or padding.
    """
    if form.allocated < 8 or form.stored >= form.allocated or form.overlays:
        return
    _, bits = _bits(words)
    above = form.allocated - 1 - form.high
    upper = bits >> (form.high + 1)
    sound = upper == 0
    if form.signed:
        sound |= (upper == 2**above - 1) & (values < 0)
    if empty is not None:
        sound |= empty
    if not sound.all():
        raise Refused(
            f"pixels use more than the {form.stored} bits that the header says are stored, and are "
            "not its padding"
        )


def _bits(words: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    own = np.ascontiguousarray(words, dtype=words.dtype.newbyteorder("="))
    return own, own.view(f"u{own.itemsize}")


def padding(
    words: NDArray[Any], values: NDArray[Any], dataset: Dataset, form: Format
) -> NDArray[np.bool_] | None:
    """Find padding (PS3.3, C.7.5.1.1.2), written as a whole word or as a stored value.

    Args:
        words: (H, W), as they lie in the file.
        values: (H, W), what :func:`stored_values` makes of them.
        dataset: the file's.
        form: of the pixels.

    Returns:
        (H, W), True on padding; None where the header names none.

    Raises:
        Refused: The header names padding that is no number.
    """
    named = _named(dataset, "PixelPaddingValue")
    limit = _named(dataset, "PixelPaddingRangeLimit")
    if not named:
        return None
    found = np.zeros(words.shape, np.bool_)
    for pixels, bits in ((words, form.allocated), (values, form.stored)):
        last = _as_pixel(limit[0], form, bits) if limit else None
        for value in named:
            first = _as_pixel(value, form, bits)
            if first is not None:
                low, high = sorted((first, first if last is None else last))
                found |= (pixels >= low) & (pixels <= high)
    return found


def _named(dataset: Dataset, keyword: str) -> tuple[int, ...]:
    found = integers(dataset, keyword)
    if found is None and not is_empty(dataset, keyword):
        raise Refused("pixel padding that is no number")
    return found or ()


def float_padding(values: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Find padding in (H, W) floating-point pixels: the header's, and what is no number."""
    found: NDArray[np.bool_] = ~np.isfinite(values)
    keyword = _FLOAT_PADDING[values.itemsize]
    first = number(dataset, f"{keyword}Value")
    if first is not None:
        last = number(dataset, f"{keyword}RangeLimit")
        low, high = sorted((first, first if last is None else last))
        found |= (values >= low) & (values <= high)
    return found


def _as_pixel(value: int, form: Format, bits: int) -> int | None:
    """Read a value as signed or unsigned as pixels of some bits are; many writers mix them up."""
    if form.signed and value >= 2 ** (bits - 1):
        value -= 2**bits
    elif not form.signed and value < 0 and bits == form.allocated:
        value += 2**bits  # fewer bits would make a value of it that tissue may have
    low = -(2 ** (bits - 1)) if form.signed else 0
    return value if low <= value < low + 2**bits else None
