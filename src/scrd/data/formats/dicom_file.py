"""Opening a DICOM file that nobody vouches for: limits, transfer syntax, where the pixels are.

pydicom reads what is there; here is decided how much of it may be there. Whatever a header holds,
only the elements of `_KEYWORDS` are kept, none of them above `_MAX_ELEMENT` bytes, and parsing ends
after `_MAX_READS` pieces: a file of a few MB can otherwise hold millions of empty sequence items,
each of which becomes an object of a kilobyte.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from scrd.data.formats.dicom_elements import text
from scrd.data.formats.dicom_quiet import quiet
from scrd.data.formats.info import Refused

_MAX_READS = 1_500_000
_MAX_ELEMENT = 16 << 20  # bytes; 300 times the largest lookup table
_MAX_ITEMS = 300_000  # of the sequences that say something for each frame
_MAX_INFLATED = 256 << 20  # bytes
_TOO_LARGE = f"a header element above {_MAX_ELEMENT >> 20} MiB"
_TOO_MANY = "a header of too many elements"

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_KEYWORDS = (
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality"),
    *("Manufacturer", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"),
    *("BodyPartExamined", "ViewPosition"),
    *("StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "FrameOfReferenceUID"),
    *("AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    "GantryDetectorTilt",
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"),
    *("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    *("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *_GROUPS,
)
_OVERLAY_BITS = [group << 16 | 0x0102 for group in range(0x6000, 0x6020, 2)]
_PIXEL_DATA = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
# pixels, but not of a patient's body
_DERIVED = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose distribution",
}
_PIXEL_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")


@dataclass(frozen=True)
class Pixels:
    """Where the pixel data of a file lie.

    Attributes:
        keyword: "PixelData", "FloatPixelData" or "DoubleFloatPixelData".
        vr: How they are stored, "OB", "OW" or another one.
        offset: First byte of the value.
        length: Bytes of the value that the file holds; None where it is divided into fragments.
    """

    keyword: str
    vr: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class Parsed:
    """The part of a header that is used.

    Attributes:
        dataset: The elements of `_KEYWORDS`.
        syntax: How the pixels are encoded; None where the file names something impossible.
        pixels: None where there is no pixel data element.
        deflated: First byte of the deflated part of the file; None where nothing is.
        overlays: Whether bits of the pixels' words are overlays, as was usual before 2006.
    """

    dataset: Dataset
    syntax: UID | None
    pixels: Pixels | None
    deflated: int | None
    overlays: bool

    @property
    def no_image(self) -> str | None:
        """What the file holds if it is not meant to hold images of a patient, else None."""
        sop_class = text(self.dataset, "SOPClassUID")
        if sop_class in _DERIVED:
            return _DERIVED[sop_class]
        is_image = sop_class is not None and "Image Storage" in UID(sop_class).name
        return None if is_image or self.pixels else "a DICOM object without pixels"


@contextmanager
def opened(path: Path) -> Iterator[tuple[Parsed, BinaryIO]]:
    """Parse a header and hand out the file in which `Pixels.offset` counts.

    Raises:
        Refused: One of the limits was met.
        Exception: Whatever pydicom raises on broken bytes.
    """
    with quiet(), open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        parsed = _parsed(path, status.st_mtime_ns, status.st_size)
        if parsed.deflated is None:
            yield parsed, stream
        else:
            yield parsed, _inflated(stream, parsed.deflated)


# the frames of one file are asked for one by one
@lru_cache(maxsize=2)
def _parsed(path: Path, modified: int, size: int) -> Parsed:
    with open(path, "rb") as stream:
        try:
            return _parse(stream, None)
        except _DeflatedError as found:
            return _parse(_inflated(stream, found.offset), found.offset)


def _parse(stream: BinaryIO, deflated: int | None) -> Parsed:
    known = [tag_for_keyword(keyword) for keyword in _KEYWORDS]
    tags = cast("list[BaseTag | int]", [*known, *_OVERLAY_BITS])
    dataset = parse_elements(stream, tags, stop_before_pixels=True)
    for keyword in _GROUPS:
        _check_items(dataset, keyword)
    overlays = any(_is_in_pixels(dataset, tag) for tag in _OVERLAY_BITS)
    return Parsed(dataset, _syntax(dataset), _find_pixels(stream), deflated, overlays)


def _is_in_pixels(dataset: Dataset, overlay_bit: int) -> bool:
    try:
        return bool(dataset[overlay_bit].value)  # 0 is an overlay with data of its own
    except KeyError:
        return False


def parse_elements(
    stream: BinaryIO, tags: list[BaseTag | int], *, stop_before_pixels: bool = False
) -> pydicom.FileDataset:
    """Read elements of a file within the limits of this module; exceptions as for `opened`."""
    limited = _Limited(stream)
    try:
        return pydicom.dcmread(
            cast(BinaryIO, limited),
            force=True,
            specific_tags=tags,
            defer_size=_MAX_ELEMENT,
            stop_before_pixels=stop_before_pixels,
        )
    except OSError:  # as which pydicom passes on what happens between two items
        if limited.refusal is not None:
            raise limited.refusal from None
        raise


class _DeflatedError(Exception):
    def __init__(self, offset: int) -> None:
        self.offset = offset


class _Limited:
    """A file that can be read neither without end nor in too many pieces."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = _MAX_READS
        self.refusal: Refused | None = None
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # pydicom does so in one case, to inflate all that follows
            raise _DeflatedError(self._stream.tell())
        self._left -= 1
        if self._left < 0 or size > _MAX_ELEMENT:
            self.refusal = Refused(_TOO_LARGE if self._left >= 0 else _TOO_MANY)
            raise self.refusal
        return self._stream.read(size)


def _inflated(stream: BinaryIO, offset: int) -> BinaryIO:
    stream.seek(offset)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(stream.read(_MAX_INFLATED), _MAX_INFLATED)
    if len(content) == _MAX_INFLATED:
        raise Refused(f"deflated data above {_MAX_INFLATED >> 20} MiB")
    return io.BytesIO(content)


def _check_items(dataset: Dataset, keyword: str) -> None:
    """Refuse a sequence that would burst when it is parsed, which pydicom does on first use."""
    if keyword not in dataset:
        return
    try:
        content = dataset.get_item(keyword).value
    except OSError:  # left out by its size, and pydicom does not know where to read it
        raise Refused(_TOO_LARGE) from None
    if isinstance(content, bytes):
        items = content.count(b"\xfe\xff\x00\xe0") + content.count(b"\xff\xfe\xe0\x00")
        if items > _MAX_ITEMS:
            raise Refused(_TOO_MANY)


def _syntax(dataset: Dataset) -> UID | None:
    meta = getattr(dataset, "file_meta", None) or {}
    named = meta.get("TransferSyntaxUID")
    if named:
        syntax = UID(named) if isinstance(named, str) else None
        deflated = syntax is not None and syntax.is_transfer_syntax and syntax.is_deflated
        return ExplicitVRLittleEndian if deflated else syntax
    implicit, little = dataset.original_encoding
    if not little:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _find_pixels(stream: BinaryIO) -> Pixels | None:
    """Read the head of the pixel data element at which the parser has stopped."""
    start = stream.tell()
    head = stream.read(12)
    end = stream.seek(0, os.SEEK_END)
    if len(head) < 12:
        return None
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        keyword = _PIXEL_DATA.get(group << 16 | element)
        if keyword is None:
            continue
        explicit = head[4:6] in _PIXEL_VRS
        where = 8 if explicit else 4
        (length,) = struct.unpack(f"{order}L", head[where : where + 4])
        offset = start + where + 4
        vr = head[4:6].decode("ascii") if explicit else "OW"
        whole = None if length == 0xFFFFFFFF else min(length, end - offset)
        return Pixels(keyword, vr, offset, whole)
    return None
