"""Pixels of a DICOM image: HU for CT, rescaled values for MR and PET, display values for the rest.

The order of the transformations is that of DICOM PS3.4 N.2: stored value, modality LUT or rescale,
VOI LUT or window, presentation. Each is an equation over the values that the *header* allows, never
over those that happen to occur in one image, so that equal tissue stays equal in all images.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from scrd.data.formats.dicom_decoding import PALETTE, Format, decode_frame, read_format
from scrd.data.formats.dicom_elements import (
    elements,
    group,
    is_empty,
    is_little_endian,
    item,
    number,
    numbers,
    text,
    whole,
)
from scrd.data.formats.dicom_file import opened
from scrd.data.formats.guard import MAX_PIXELS, refusing
from scrd.data.formats.info import Refused

_BLOCK = 1 << 20  # pixels that are computed at once, in float64
# Secondary Captures carry the modality of what was captured, but those of 8 bits are pictures of
# a screen
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
_HOUNSFIELD = (None, "HU", "HU_MOD", "US")  # US: unspecified
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Array = NDArray[np.float64]


def unit(dataset: Dataset) -> str:
    """What a grey value means: "HU", "rescaled" or "display", as in `ImageInfo.values`."""
    modality = (text(dataset, "Modality") or "").upper()
    is_capture = (text(dataset, "SOPClassUID") or "").startswith(_CAPTURES)
    if is_capture and (whole(dataset, "BitsStored") or 0) <= 8:
        return "display"
    if modality in ("MR", "PT", "NM"):
        return "rescaled"
    if modality != "CT":
        return "display"
    place = _rescale(dataset, 0)
    is_scaled = number(place, "RescaleIntercept") is not None
    kind = text(place, "RescaleType")
    return "HU" if is_scaled and kind in _HOUNSFIELD else "rescaled"


def is_windowed(dataset: Dataset) -> bool | None:
    """Whether a window or lookup table of the header makes grey display values; else None."""
    if unit(dataset) != "display":
        return None
    place = group(dataset, 0, "FrameVOILUTSequence")
    place = dataset if place is None else place
    centre, width = number(place, "WindowCenter"), number(place, "WindowWidth")
    window = centre is not None and width is not None and width > 0
    return window or item(place, "VOILUTSequence") is not None


def read_pixels(
    path: str | os.PathLike[str], frame: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Read one image of a DICOM file; only that frame is decoded.

    - CT: modality LUT or rescale, no window: "HU". MR, PET, NM: likewise, "rescaled".
    - All other grey, and 8-bit Secondary Captures: modality LUT, then the first VOI LUT or window,
      else the whole range that the header allows; "display", 0 black to 255 white, with fractions.
    - MONOCHROME1 is inverted, within the stored range for CT, MR, PET and NM.
    - Padding (PS3.3 C.7.5.1.1.2) takes the darkest value of the pixels that are not padding.
    - Colour: red, green, blue; more than 8 bits lose their lowest ones.

    Args:
        path: The file.
        frame: 0-based; None is enough for a file with one frame.
        max_pixels: Larger images, rows times columns times samples, are refused by their header.

    Returns:
        (H, W) float32 in the unit above, or (H, W, 3) uint8.

    Raises:
        ImageError: The file cannot be read; the reason quotes nothing that may name a patient.
    """
    path = Path(path)
    with (
        refusing(path, "decoding the pixels"),
        np.errstate(over="ignore", invalid="ignore"),
        opened(path) as (parsed, stream),
    ):
        form = read_format(parsed, max_pixels)
        index = _frame_index(frame, form.frames)
        stored, photometric = decode_frame(stream, parsed, form, index)
        if form.photometric == PALETTE:
            return _through_palette(stored, parsed.dataset)
        if form.samples == 1:
            return _grey(stored, parsed.dataset, form, index)
        if photometric != "RGB":
            raise Refused(f"colour that cannot be converted from {form.photometric}")
        return _eight_bits(stored, form.stored)


def _frame_index(frame: int | None, frames: int) -> int:
    if frame is None and frames > 1:
        raise Refused(f"{frames} frames in one file; name the one to read")
    if frame is not None and not 0 <= frame < frames:
        raise Refused(f"no frame {frame}: the file holds {frames}, counted from 0")
    return frame or 0


def _eight_bits(pixels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    shift = bits - 8
    shifted = pixels >> shift if shift >= 0 else pixels << -shift
    return np.ascontiguousarray(shifted.astype(np.uint8))


def _through_palette(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    pixels = np.empty((*stored.shape, 3), np.uint8)
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        table = _table(
            dataset,
            f"{colour}PaletteColorLookupTableDescriptor",
            f"{colour}PaletteColorLookupTableData",
            little=is_little_endian(dataset),
            signed=stored.dtype.kind == "i",
        )
        if table is None:
            raise Refused("a palette that is missing, segmented or broken")
        colours = table.entries.astype(np.uint16) >> (table.bits - 8)
        where = np.clip(stored.astype(np.int64) - table.first, 0, len(colours) - 1)
        pixels[..., channel] = colours[where]
    return pixels


def _grey(stored: NDArray[Any], dataset: Dataset, form: Format, index: int) -> NDArray[np.float32]:
    low, high = form.limits
    inverted = form.photometric == "MONOCHROME1"
    display = unit(dataset) == "display"
    rescale = _modality(dataset, index, (low, high))
    show = _voi(dataset, index, rescale.limits) if display else None

    def values(block: Array) -> Array:
        if show is None:
            return rescale.of(low + high - block if inverted else block)
        shown = 255 * show(rescale.of(block))
        return 255 - shown if inverted else shown

    pixels = np.empty(stored.shape, np.float32)
    rows = max(1, _BLOCK // form.columns)
    for top in range(0, form.rows, rows):
        pixels[top : top + rows] = values(stored[top : top + rows].astype(np.float64))
    padding = _padding(stored, dataset, form)
    if padding is not None and padding.any() and not padding.all():
        pixels[padding] = pixels.min(where=~padding, initial=np.inf)
    return pixels


def _padding(stored: NDArray[Any], dataset: Dataset, form: Format) -> NDArray[np.bool_] | None:
    first = _as_stored(whole(dataset, "PixelPaddingValue"), form)
    if first is None:
        return None
    last = _as_stored(whole(dataset, "PixelPaddingRangeLimit"), form)
    if last is None:
        last = first
    found: NDArray[np.bool_] = (stored >= min(first, last)) & (stored <= max(first, last))
    return found


def _as_stored(padding: int | None, form: Format) -> int | None:
    """Read a value as signed or unsigned as the pixels are; many writers mix them up."""
    if padding is None:
        return None
    if form.signed and padding >= 2 ** (form.allocated - 1):
        padding -= 2**form.allocated
    elif not form.signed and padding < 0:
        padding += 2**form.allocated
    kind = np.iinfo(f"{'i' if form.signed else 'u'}{max(1, form.allocated // 8)}")
    return padding if kind.min <= padding <= kind.max else None


@dataclass(frozen=True)
class _Modality:
    of: Callable[[Array], Array]
    limits: tuple[float, float]


def _rescale(dataset: Dataset, frame: int) -> Dataset:
    """Where slope and intercept of a frame stand."""
    found = group(dataset, frame, "PixelValueTransformationSequence")
    return dataset if found is None else found


def _modality(dataset: Dataset, frame: int, limits: tuple[float, float]) -> _Modality:
    """Modality LUT, or else rescale (PS3.3 C.11.1), and the range of what comes out."""
    if (place := item(dataset, "ModalityLUTSequence")) is not None:
        table = _lut(place, dataset, signed=limits[0] < 0)
        if table is None:
            raise Refused("a modality lookup table that is broken")
        return _Modality(table.look_up, (0, 2.0**table.bits - 1))
    place = _rescale(dataset, frame)
    scale, shift = _factor(place, "RescaleSlope", 1), _factor(place, "RescaleIntercept", 0)
    if scale == 0:
        raise Refused("a rescale slope of zero")
    ends = sorted(scale * end + shift for end in limits)
    if not -_FLOAT32_MAX < ends[0] <= ends[1] < _FLOAT32_MAX:
        raise Refused("rescaled values beyond the range of float32")
    return _Modality(lambda stored: stored * scale + shift, (ends[0], ends[1]))


def _factor(place: Dataset, keyword: str, default: float) -> float:
    found = number(place, keyword)
    if found is None and not is_empty(place, keyword):
        raise Refused("a rescale slope or intercept that is no number")
    return default if found is None else found


def _voi(dataset: Dataset, frame: int, limits: tuple[float, float]) -> Callable[[Array], Array]:
    """The first VOI LUT or window (PS3.3 C.11.2) as a function to 0..1; else the whole range."""
    low, high = limits
    place = group(dataset, frame, "FrameVOILUTSequence")
    place = dataset if place is None else place
    listed = item(place, "VOILUTSequence")
    table = None if listed is None else _lut(listed, dataset, signed=low < 0)
    if table is not None:
        return lambda values: table.look_up(values) / (2.0**table.bits - 1)
    centre, width = number(place, "WindowCenter"), number(place, "WindowWidth")
    kind = (text(place, "VOILUTFunction") or "").upper()
    kind = kind if kind in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    least = 1 if kind == "LINEAR" else np.finfo(np.float64).tiny
    if centre is None or width is None or width < least:  # such a window shows nothing
        centre, width, kind = (low + high) / 2, max(high - low, 1.0), "LINEAR_EXACT"
    return _window(centre, width, kind)


def _window(centre: float, width: float, kind: str) -> Callable[[Array], Array]:
    if kind == "SIGMOID":
        # beyond +-700 the result is 0 or 1, and exp would overflow
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if kind == "LINEAR":
        if width == 1:
            return lambda values: (values > centre - 0.5).astype(np.float64)
        centre, width = centre - 0.5, width - 1
    return lambda values: np.clip((values - centre) / width + 0.5, 0, 1)


@dataclass(frozen=True)
class _Table:
    entries: NDArray[np.float64]
    first: int
    bits: int

    def look_up(self, values: Array) -> Array:
        where = np.clip(values - self.first, 0, len(self.entries) - 1)
        found: Array = self.entries[np.rint(where).astype(np.int64)]
        return found


def _lut(place: Dataset, dataset: Dataset, *, signed: bool) -> _Table | None:
    little = is_little_endian(dataset)
    return _table(place, "LUTDescriptor", "LUTData", little=little, signed=signed)


def _table(
    place: Dataset, descriptor: str, data: str, *, little: bool, signed: bool
) -> _Table | None:
    """Read a lookup table (PS3.3 C.11.1.1); None where it is absent or broken.

    Args:
        place: Where it stands.
        descriptor: Keyword of the number of entries, the first value mapped and the bits.
        data: Keyword of the entries.
        little: Whether the file is little-endian.
        signed: Whether the values that are looked up may be negative.
    """
    found = numbers(place, descriptor, 3)
    if found is None:
        return None
    count, first, bits = map(int, found)
    count = count % 2**16 or 2**16
    # writers and readers disagree whether the first value is signed
    first = (first + 2**15) % 2**16 - 2**15 if signed else first % 2**16
    content = elements(place, data)
    if isinstance(content, bytes):
        packed = len(content) < 2 * count
        content = np.frombuffer(content, np.uint8 if packed else "<u2" if little else ">u2")
    entries = np.array(content if content is not None else (), np.float64).ravel()[:count]
    if len(entries) < count or not 8 <= bits <= 16:
        return None
    return _Table(np.clip(entries, 0, 2**bits - 1), first, bits)
