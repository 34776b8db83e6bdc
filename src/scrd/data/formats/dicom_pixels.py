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

from scrd.data.formats.dicom_bits import check_beyond, float_padding, padding, stored_values
from scrd.data.formats.dicom_decoding import (
    PALETTE,
    Format,
    decode_frame,
    read_format,
    word_format,
)
from scrd.data.formats.dicom_elements import (
    group,
    integers,
    is_empty,
    item,
    number,
    text,
    whole,
)
from scrd.data.formats.dicom_file import opened
from scrd.data.formats.dicom_tables import lut, through_palette
from scrd.data.formats.guard import MAX_PIXELS, refusing
from scrd.data.formats.info import Refused

_BLOCK = 1 << 20  # pixels that are computed at once, in float64
# Secondary Captures carry the modality of what was captured, but those of 8 bits are pictures of
# a screen
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
_HOUNSFIELD = (None, "HU", "HU_MOD", "US")  # US: unspecified
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_NEEDED = (
    ("PhotometricInterpretation", "photometric interpretation"),
    ("BitsStored", "number of stored bits"),
    ("PixelRepresentation", "pixel representation"),
)
_MOST_HOUNSFIELD = 32_767  # extended scales for metal end near 30,710
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Array = NDArray[np.float64]


def unit(dataset: Dataset, frame: int = 0) -> str:
    """What a grey value means: "HU", "rescaled" or "display", as in `ImageInfo.values`."""
    modality = (text(dataset, "Modality") or "").upper()
    is_capture = (text(dataset, "SOPClassUID") or "").startswith(_CAPTURES)
    if is_capture and (whole(dataset, "BitsStored") or 0) <= 8:
        return "display"
    if modality in ("MR", "PT", "NM"):
        return "rescaled"
    if modality != "CT":
        return "display"
    place = _rescale(dataset, frame)
    is_scaled = number(place, "RescaleIntercept") is not None
    kind = text(place, "RescaleType")
    return "HU" if is_scaled and kind in _HOUNSFIELD else "rescaled"


def oddities(dataset: Dataset, photometric: str, *, is_float: bool) -> tuple[str, ...]:
    """What a header says about grey values that may not be true, a sentence each."""
    needed = _NEEDED[:1] if is_float else _NEEDED
    found = [f"no {what} in the header" for key, what in needed if is_empty(dataset, key)]
    inverted = photometric == "MONOCHROME1"
    if unit(dataset) != "display":
        if inverted and unit(dataset) != "HU":
            found.append("MONOCHROME1: shown inverted, and read as measured")
        return tuple(found)
    shape = (text(dataset, "PresentationLUTShape") or "").upper()
    if shape in ("IDENTITY", "INVERSE") and inverted != (shape == "INVERSE"):
        found.append(f"{photometric} with a presentation LUT shape {shape}, which contradict")
    place = _voi_place(dataset, 0)
    listed = item(place, "VOILUTSequence")
    if listed is not None and lut(listed, dataset, signed=True) is None:
        found.append("a lookup table for display that is broken")
    named = not (is_empty(place, "WindowCenter") and is_empty(place, "WindowWidth"))
    centres, widths = (integers(place, key) or () for key in ("WindowCenter", "WindowWidth"))
    if len(centres) != len(widths) and centres and widths:
        found.append("display windows of more centres than widths, or the reverse")
    if listed is None and named and _window_of(place) is None:
        found.append("a display window that is incomplete, not a number, or without width")
    kind = (text(place, "VOILUTFunction") or "LINEAR").upper()
    if named and kind not in _FUNCTIONS:
        found.append("a function of the display window that is not known")
    return tuple(found)


def is_windowed(dataset: Dataset) -> bool | None:
    """Whether a window or lookup table of the header makes grey display values; else None."""
    if unit(dataset) != "display":
        return None
    place = _voi_place(dataset, 0)
    return _window_of(place) is not None or item(place, "VOILUTSequence") is not None


def read_pixels(
    path: str | os.PathLike[str], frame: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Read one image of a DICOM file; only that frame is decoded.

    - CT: modality LUT or rescale, no window: "HU". MR, PET, NM: likewise, "rescaled".
    - All other grey, and 8-bit Secondary Captures: modality LUT, then the first VOI LUT or window,
      else the whole range that the header allows; "display", 0 black to 255 white, with fractions.
    - MONOCHROME1 inverts display values, and no measured ones.
    - Floating-point pixels of CT, MR, PET and NM are read; what is no number counts as padding.
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
        words, photometric = decode_frame(stream, parsed, form, index)
        if form.is_float:
            return _measured(words, parsed.dataset, index)
        own = word_format(parsed, form, 8 * words.itemsize if form.allocated > 1 else 1)
        values = stored_values(words, own)
        empty = padding(words, values, parsed.dataset, form) if form.channels == 1 else None
        check_beyond(words, values, empty, own)
        if form.photometric == PALETTE:
            return through_palette(values, parsed.dataset)
        if form.samples == 1:
            return _grey(values, empty, parsed.dataset, form, index)
        if photometric != "RGB":
            raise Refused(f"colour that cannot be converted from {form.photometric}")
        return _eight_bits(values, form.stored)


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


def _grey(
    stored: NDArray[Any],
    empty: NDArray[np.bool_] | None,
    dataset: Dataset,
    form: Format,
    index: int,
) -> NDArray[np.float32]:
    rescale = _modality(dataset, index, form.limits)
    show = None
    if unit(dataset) == "display":
        show = _voi(dataset, index, rescale.limits)
    inverted = form.photometric == "MONOCHROME1"

    def values(block: Array) -> Array:
        if show is None:
            return rescale.of(block)
        shown = 255 * show(rescale.of(block))
        return 255 - shown if inverted else shown

    pixels = np.empty(stored.shape, np.float32)
    rows = max(1, _BLOCK // form.columns)
    for top in range(0, form.rows, rows):
        pixels[top : top + rows] = values(stored[top : top + rows].astype(np.float64))
    pixels = pixels if empty is None else _darkened(pixels, empty)
    if unit(dataset) == "HU" and pixels.max() > _MOST_HOUNSFIELD:
        raise Refused(f"Hounsfield units above {_MOST_HOUNSFIELD:,}, which nothing has")
    return pixels


def _measured(stored: NDArray[Any], dataset: Dataset, index: int) -> NDArray[np.float32]:
    """Floating-point pixels in their unit; those of images for display have no known range."""
    if unit(dataset) == "display":
        raise Refused("floating-point pixel data of an image for display")
    empty = float_padding(stored, dataset)
    if empty.all():
        raise Refused("floating-point pixel data without a number")
    filled = np.where(empty, stored.min(where=~empty, initial=np.inf), stored).astype(np.float64)
    ends = (float(filled.min()), float(filled.max()))
    return _darkened(_modality(dataset, index, ends).of(filled).astype(np.float32), empty)


def _darkened(pixels: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Give padding the darkest value of the rest."""
    if empty.any() and not empty.all():
        pixels[empty] = pixels.min(where=~empty, initial=np.inf)
    return pixels


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
    _check_rescale(dataset, frame)
    if (place := item(dataset, "ModalityLUTSequence")) is not None:
        table = lut(place, dataset, signed=limits[0] < 0)
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


def _check_rescale(dataset: Dataset, frame: int) -> None:
    """Refuse a frame that is rescaled in two ways, or not to the unit of the first one."""
    place = _rescale(dataset, frame)
    slope, intercept = _factor(place, "RescaleSlope", 1), _factor(place, "RescaleIntercept", 0)
    whole_slope = _factor(dataset, "RescaleSlope", slope)
    whole_intercept = _factor(dataset, "RescaleIntercept", intercept)
    if (whole_slope, whole_intercept) != (slope, intercept):
        raise Refused("a rescale of the frame that contradicts that of the file")
    if item(dataset, "ModalityLUTSequence") is not None and (slope, intercept) != (1, 0):
        raise Refused("both a modality lookup table and a rescale")
    if unit(dataset) == "HU" and slope < 0:
        raise Refused("Hounsfield units with a negative slope")
    if unit(dataset) == "HU" and unit(dataset, frame) != "HU":
        raise Refused("a frame without a rescale to HU, unlike the first one")


def _factor(place: Dataset, keyword: str, default: float) -> float:
    found = number(place, keyword)
    if found is None and not is_empty(place, keyword):
        raise Refused("a rescale slope or intercept that is no number")
    return default if found is None else found


def _voi_place(dataset: Dataset, frame: int) -> Dataset:
    """Where window and VOI LUT of a frame stand."""
    found = group(dataset, frame, "FrameVOILUTSequence")
    return dataset if found is None else found


def _voi(dataset: Dataset, frame: int, limits: tuple[float, float]) -> Callable[[Array], Array]:
    """The first VOI LUT or window (PS3.3 C.11.2) as a function to 0..1; else the whole range."""
    low, high = limits
    place = _voi_place(dataset, frame)
    listed = item(place, "VOILUTSequence")
    table = None if listed is None else lut(listed, dataset, signed=low < 0)
    if table is not None:
        return lambda values: table.look_up(values) / (2.0**table.bits - 1)
    found = _window_of(place)
    return _window(*(found or ((low + high) / 2, max(high - low, 1.0), "LINEAR_EXACT")))


def _window_of(place: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window; None where there is none that shows."""
    centre, width = number(place, "WindowCenter"), number(place, "WindowWidth")
    kind = (text(place, "VOILUTFunction") or "").upper()
    kind = kind if kind in _FUNCTIONS else "LINEAR"
    least = 1 if kind == "LINEAR" else np.finfo(np.float64).tiny
    if centre is None or width is None or width < least:
        return None
    return centre, width, kind


def _window(centre: float, width: float, kind: str) -> Callable[[Array], Array]:
    if kind == "SIGMOID":
        # beyond +-700 the result is 0 or 1, and exp would overflow
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if kind == "LINEAR":
        if width == 1:
            return lambda values: (values > centre - 0.5).astype(np.float64)
        centre, width = centre - 0.5, width - 1
    return lambda values: np.clip((values - centre) / width + 0.5, 0, 1)
