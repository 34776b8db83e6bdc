"""Decoding one frame of a DICOM file to the values that are stored in it."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from scrd.data.formats.dicom_codecs import register
from scrd.data.formats.dicom_elements import integers, is_empty, text, whole
from scrd.data.formats.dicom_file import Parsed, Pixels
from scrd.data.formats.info import Refused
from scrd.system.extras import needs

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MAX_FRAMES = 65_536
_ITEM = b"\xfe\xff\x00\xe0"
_CODE_STARTS = (b"\xff\xd8", b"\xff\x4f")  # JPEG and JPEG-LS, JPEG 2000
# whose words hold the stored bits and nothing else
_EXACT = (
    JPEGExtended12Bit,
    *(JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless),
    *(HTJ2KLossless, HTJ2KLosslessRPCL),
)


@dataclass(frozen=True)
class Format:
    """The image pixel module (PS3.3 C.7.6.3), checked.

    Attributes:
        rows: H.
        columns: W.
        frames: How many images.
        samples: 1, or 3 of colour.
        photometric: Photometric Interpretation.
        allocated: Bits of a word.
        stored: Bits of a word that are the value.
        high: The highest of them, counted from 0.
        signed: Whether values are two's complement.
        planes: 1 where the three colours lie one behind the other, else 0.
        overlays: Whether further bits of the words are overlays.
        is_float: Whether words are floating-point numbers.
    """

    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high: int
    signed: bool
    planes: int
    overlays: bool
    is_float: bool

    @property
    def channels(self) -> int:
        """Of the decoded array: 1 or 3."""
        return 1 if self.photometric in GREY else 3

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest value that can be stored."""
        if self.signed:
            return -(2.0 ** (self.stored - 1)), 2.0 ** (self.stored - 1) - 1
        return 0.0, 2.0**self.stored - 1


def read_format(parsed: Parsed, max_pixels: int) -> Format:
    """Read and check the image pixel module.

    Raises:
        Refused: The file holds no image of a patient; or the module is incomplete, contradicts
            itself, is of a kind that is not read, or the image is too large.
    """
    if parsed.no_image is not None:
        raise Refused(f"not an image of a patient: {parsed.no_image}")
    if parsed.pixels is None:
        raise Refused("an image without pixel data")
    dataset = parsed.dataset
    is_float = parsed.pixels.keyword != "PixelData"
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if not rows or not columns or rows < 0 or columns < 0:
        raise Refused("an image without a size")
    samples = whole(dataset, "SamplesPerPixel") or 1
    photometric = (text(dataset, "PhotometricInterpretation") or "MONOCHROME2").upper()
    if photometric not in (*GREY, *_COLOURS, PALETTE):
        raise Refused("a photometric interpretation that is not read")
    if samples != (3 if photometric in _COLOURS else 1):
        raise Refused(f"{samples} samples a pixel, which contradicts {photometric}")
    if rows * columns * samples > max_pixels:
        raise Refused(f"more than {max_pixels:,} pixels ({columns}x{rows}x{samples})")
    frames = _single(dataset, "NumberOfFrames", "a number of frames") or 1
    if not 1 <= frames <= _MAX_FRAMES:
        raise Refused(f"{frames} frames")
    allocated = whole(dataset, "BitsAllocated") or 0
    stored = _single(dataset, "BitsStored", "a number of stored bits")
    stored = allocated if stored is None else stored
    high = _single(dataset, "HighBit", "a high bit")
    high = stored - 1 if high is None or is_float else high
    if is_float:
        allocated = stored = 32 if parsed.pixels.keyword == "FloatPixelData" else 64
        if photometric not in GREY:
            raise Refused(f"floating-point pixel data of photometric interpretation {photometric}")
    elif allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        raise Refused(f"{stored} bits stored in {allocated}")
    elif not stored - 1 <= high < allocated:
        raise Refused(f"{stored} bits stored in {allocated}, of which the highest is {high}")
    return Format(
        rows,
        columns,
        frames,
        samples,
        photometric,
        allocated,
        stored,
        high,
        _flag(dataset, "PixelRepresentation", "a pixel representation") == 1,
        _flag(dataset, "PlanarConfiguration", "a planar configuration"),
        parsed.overlays,
        is_float,
    )


def _single(dataset: Dataset, keyword: str, what: str) -> int | None:
    """The one number of an element; None where it is absent or empty."""
    found = integers(dataset, keyword)
    if found is None and not is_empty(dataset, keyword):
        raise Refused(f"{what} that is no number")
    if found is not None and len(found) > 1:
        raise Refused(f"{what} of several values")
    return found[0] if found else None


def _flag(dataset: Dataset, keyword: str, what: str) -> int:
    found = _single(dataset, keyword, what) or 0
    if found not in (0, 1):
        raise Refused(f"{what} of {found}, not 0 or 1")
    return found


def decode_frame(
    stream: BinaryIO, parsed: Parsed, form: Format, index: int
) -> tuple[NDArray[Any], str]:
    """Decode one frame: (H, W) or (H, W, 3) and the colour space it is in.

    They are whole words, of which some bits are the values, see :func:`word_format`.
    """
    pixels, syntax = parsed.pixels, parsed.syntax
    assert pixels is not None
    try:
        decoder = get_decoder(syntax or "")
    except NotImplementedError:
        named = f" ({syntax.name})" if syntax and syntax.name != syntax else ""
        raise Refused(f"a transfer syntax that is not read{named}") from None
    register(decoder)
    if not decoder.is_available:
        raise Refused(needs(f"decoding {decoder.UID.name}", "dicom"))
    offsets = None
    if decoder.is_encapsulated:
        if pixels.length is not None:
            raise Refused("compressed pixel data that are not divided into fragments")
        found = [parsed.dataset.get(f"ExtendedOffsetTable{part}") for part in ("", "Lengths")]
        offsets = (found[0], found[1]) if all(isinstance(x, bytes) for x in found) else None
        _check_frames(stream, pixels, syntax, form)
        stream.seek(pixels.offset)
        frame = get_frame(stream, index, number_of_frames=form.frames, extended_offsets=offsets)
        _check_codestream(frame, str(syntax), form)
    else:
        _check_length(pixels, form, index)
    stream.seek(pixels.offset)
    options: dict[str, Any] = {
        "rows": form.rows,
        "columns": form.columns,
        "number_of_frames": form.frames,
        "samples_per_pixel": form.samples,
        "photometric_interpretation": form.photometric,
        "planar_configuration": form.planes,
        "bits_allocated": form.allocated,
        "bits_stored": form.stored,
        "correct_unused_bits": False,  # which leaves the choice to us
        "pixel_representation": int(form.signed),
        "pixel_keyword": pixels.keyword,
        "pixel_vr": pixels.vr,
    }
    if offsets is not None:
        options["extended_offsets"] = offsets
    try:
        array, found_format = decoder.as_array(stream, index=index, **options)
    except RuntimeError:  # every decoder that is installed has refused
        raise Refused(f"broken or unusual {decoder.UID.name} data") from None
    except BaseException as error:
        # a decoder written in Rust (pylibjpeg-rle) panics on broken data, which is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise Refused(f"broken {decoder.UID.name} data") from None
    return array, str(found_format["photometric_interpretation"])


def word_format(parsed: Parsed, form: Format, word_bits: int) -> Format:
    """Where the stored bits lie in decoded words.

    Args:
        parsed: The file.
        form: Of its pixels.
        word_bits: Of the decoded array.

    Returns:
        Uncompressed and run-length encoded words are those of the header. Of other codes the
        values begin at the lowest bit. What lossy wavelets decode to may exceed the stored bits a
        little at sharp edges, and counts whole.
    """
    if parsed.syntax is None or not parsed.syntax.is_compressed or parsed.syntax == RLELossless:
        return form
    stored = form.stored if parsed.syntax in _EXACT else word_bits
    return replace(form, allocated=word_bits, stored=stored, high=stored - 1)


def _check_frames(stream: BinaryIO, pixels: Pixels, syntax: UID | None, form: Format) -> None:
    """Refuse more frames than the header announces, by offset table or else by fragments."""
    stream.seek(pixels.offset)
    head = stream.read(8)
    length = int.from_bytes(head[4:], "little") if head[:4] == _ITEM else 0
    found = length // 4
    if not length:
        while (head := stream.read(10))[:4] == _ITEM and len(head) == 10:
            found += syntax == RLELossless or head[8:] in _CODE_STARTS
            stream.seek(int.from_bytes(head[4:8], "little") - 2, os.SEEK_CUR)
    if found > form.frames or (length and length != 4 * form.frames):
        raise Refused(f"{found} frames of compressed pixels, {form.frames} in the header")


def _check_length(pixels: Pixels, form: Format, index: int) -> None:
    if pixels.length is None:
        raise Refused("uncompressed pixel data that are divided into fragments")
    samples = form.rows * form.columns * (2 if form.photometric == "YBR_FULL_422" else form.samples)
    bytes_a_frame = samples * form.allocated / 8
    needed = (index + 1) * bytes_a_frame
    if needed > pixels.length:
        raise Refused(f"truncated: {pixels.length:,} bytes of pixel data, {needed:,.0f} are needed")
    # a few bytes more are some writers' way of filling up
    beyond = pixels.length - form.frames * bytes_a_frame
    if beyond >= max(2, bytes_a_frame / form.rows):
        raise Refused(
            f"{pixels.length:,} bytes of pixel data, {beyond:,.0f} more than the header announces"
        )


def _check_codestream(frame: bytes, syntax: str, form: Format) -> None:
    """Refuse compressed pixels that would decode to another size than the header announces."""
    found = None
    if syntax in JPEG2000TransferSyntaxes:
        found = _jpeg2000_size(frame)
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        found = _jpeg_size(frame)
    expected = (form.columns, form.rows, form.samples)
    if found is not None and found != expected:
        raise Refused(
            f"compressed pixels of {'x'.join(map(str, found))} where the header announces "
            f"{'x'.join(map(str, expected))}"
        )


def _jpeg2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """Width, height and components by the SIZ marker (ISO/IEC 15444-1, A.5.1)."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 42:
        return None
    right, bottom, left, top = struct.unpack(">4L", frame[start + 8 : start + 24])
    (components,) = struct.unpack(">H", frame[start + 40 : start + 42])
    return right - left, bottom - top, components


_FRAME_MARKER = re.compile(rb"[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]")  # SOF, JPEG-LS SOF55


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Width, height and components by the frame header (ISO/IEC 10918-1, B.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1 : at + 2]
        if marker == b"\xff":  # fill byte
            at += 1
            continue
        if _FRAME_MARKER.match(marker):
            height, width, components = struct.unpack(">HHB", frame[at + 5 : at + 10])
            return width, height, components
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
