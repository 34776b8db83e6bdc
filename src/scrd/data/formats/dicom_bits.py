"""Stored values and padding out of the words of uncompressed DICOM pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from scrd.data.formats.dicom_decoding import Format
from scrd.data.formats.dicom_elements import number, whole
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
    if form.allocated < 8 or form.stored == form.allocated:
        return words
    own = np.ascontiguousarray(words, dtype=words.dtype.newbyteorder("="))
    bits = own.view(f"u{own.itemsize}")
    if below and (bits & bits.dtype.type(2**below - 1)).any() and not form.overlays:
        raise Refused(
            f"pixels use the lowest {below} bits, which the high bit of the header leaves out"
        )
    # to the upper end and back again, which extends the sign
    upper = (bits << (form.allocated - 1 - form.high)).view(own.dtype)
    values: NDArray[Any] = upper >> (form.allocated - form.stored)
    return values


def check_beyond(words: NDArray[Any], empty: NDArray[np.bool_] | None, form: Format) -> None:
    """See that nothing but padding, overlays and signs lies above the stored bits.

    Args:
        words: (H, W) or (H, W, 3), as they lie in the file.
        empty: (H, W), True on padding; None where there is none.
        form: of the pixels.

    Raises:
        Refused: Something does: the header tells less bits than are in use, or padding that it
            does not name.
    """
    if form.allocated < 8 or form.high + 1 == form.allocated or form.overlays:
        return
    own = np.ascontiguousarray(words, dtype=words.dtype.newbyteorder("="))
    above = own.view(f"u{own.itemsize}") >> (form.high + 1)
    used = above != 0
    if form.signed:  # of a negative value all of them may be set
        used &= own >> form.high != -1
    if empty is not None and empty.any():
        used &= ~empty
    if used.any():
        raise Refused(
            f"pixels use more than the {form.stored} bits that the header says are stored, and are "
            "not its padding"
        )


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
    """
    first = _as_word(whole(dataset, "PixelPaddingValue"), form)
    if first is None:
        return None
    last = _as_word(whole(dataset, "PixelPaddingRangeLimit"), form)
    ends = sorted((first, first if last is None else last))
    found: NDArray[np.bool_] = (words >= ends[0]) & (words <= ends[1])
    if values is not words:
        found |= (values >= ends[0]) & (values <= ends[1])
    return found


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


def _as_word(value: int | None, form: Format) -> int | None:
    """Read a value as signed or unsigned as the words are; many writers mix them up."""
    if value is None:
        return None
    if form.signed and value >= 2 ** (form.allocated - 1):
        value -= 2**form.allocated
    elif not form.signed and value < 0:
        value += 2**form.allocated
    kind = np.iinfo(f"{'i' if form.signed else 'u'}{max(1, form.allocated // 8)}")
    return value if kind.min <= value <= kind.max else None
