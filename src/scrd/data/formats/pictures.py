"""Decoding of pictures in the depth in which they are stored."""

from __future__ import annotations

import os
import re
import struct
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from scrd.data.formats.info import ImageInfo, Refused

_CODESTREAM = b"\xff\x4f\xff\x51"  # JPEG 2000: start of codestream, then the sizes
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    _CODESTREAM: "JPEG 2000",
    b"P5": "PNM",
    b"P6": "PNM",
}
# The classes themselves instead of `PIL.Image.open`, whose own pixel limit is a global setting
# and cannot be told apart from a limit that the caller chose.
_PIL_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PNM": PpmImagePlugin.PpmImageFile,
}
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"})
_PNG_GREY, _PNG_RGB, _PNG_GREY_ALPHA = 0, 2, 4  # PNG colour types
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # TIFF photometric interpretation
_SEPARATE_PLANES = 2  # TIFF planar configuration
_UNSIGNED = 1  # TIFF sample format
_ORIENTATION_TAG = 0x0112


def picture_format(head: bytes) -> str | None:
    """Name of the format of a picture that begins with these bytes (12 are enough), or None."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    for signature, found in SIGNATURES.items():
        # of PNM two letters alone would take in any text that begins with them
        if head.startswith(signature) and (found != "PNM" or re.match(rb"P\d\s+[\d#]", head)):
            return found
    return None


def decode(stream: BinaryIO, file_format: str, max_pixels: int) -> NDArray[Any]:
    """Decode one image and turn it as its orientation tag asks.

    Args:
        stream: The file, at its start.
        file_format: From `picture_format`.
        max_pixels: Larger images are refused before anything is decoded.

    Returns:
        (H, W) or (H, W, 3); uint8, uint16 or float32: see `scrd.data.reading.read_image`.

    Raises:
        Refused: The image is too large, or of a kind that is not read.
        Exception: Whatever the decoders raise on broken bytes.
    """
    if file_format == "TIFF":
        pixels, orientation = _decode_tiff(stream, max_pixels)
    else:
        header = _pil_header(stream, file_format, max_pixels)
        deep = file_format == "PNG" and _stored_bits(header, stream) == 16
        pixels = _decode_16bit_png(stream) if deep else _decode_pil(header)
        orientation = _orientation(header, stream)
    # TIFF 6.0, tag 274: 5 to 8 are stored column by column
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def inspect(stream: BinaryIO, file_format: str, max_pixels: int) -> ImageInfo:
    """Read a header without decoding pixels; arguments and exceptions as for `decode`."""
    if file_format == "TIFF":
        with tifffile.TiffFile(stream) as tiff:
            page = _only_page(tiff, max_pixels)
            width, height, bits = page.imagewidth, page.imagelength, page.bitspersample
            grey = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
            orientation = _tiff_orientation(page)
    else:
        header = _pil_header(stream, file_format, max_pixels)
        (width, height), bits = header.size, _stored_bits(header, stream)
        grey = header.mode in _GREY_MODES or (
            file_format == "PNG" and bits == 16 and _png_colour(stream) == _PNG_GREY_ALPHA
        )
        orientation = _orientation(header, stream)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return ImageInfo(width, height, 1 if grey else 3, bits, file_format)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Refused(f"more than {max_pixels:,} pixels ({width}x{height})")
    if width * height == 0:
        raise Refused(f"no pixels ({width}x{height})")


def _pil_header(stream: BinaryIO, file_format: str, max_pixels: int) -> ImageFile.ImageFile:
    image = _PIL_READERS[file_format](stream)
    _check_size(*image.size, max_pixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise Refused(f"an animation of {frames} frames")
    if file_format in ("JPEG 2000", "PNM"):
        _check_depth(stream, file_format)
    return image


def _check_depth(stream: BinaryIO, file_format: str) -> None:
    """Refuse depths that Pillow would stretch to 8 or 16 bits."""
    stream.seek(0)
    if file_format == "PNM":
        fields = re.sub(rb"#[^\n]*", b"", stream.read(4096)).split(maxsplit=4)
        if int(fields[3]) not in (255, 65535):
            raise Refused(f"a PNM of a largest value other than 255 and 65535: {int(fields[3])}")
        if fields[0] == b"P6" and int(fields[3]) != 255:
            raise Refused("a PNM of 16-bit colour")
        return
    content = stream.read(1 << 16)
    start = content.find(_CODESTREAM)
    # marker 4 bytes, length 2, capabilities 2, eight sizes of 4; then components and depths
    at = start + 40
    count = int.from_bytes(content[at : at + 2], "big")
    depths = {content[at + 2 + 3 * k] for k in range(count)} if start >= 0 else set()
    if depths != {7}:
        raise Refused("a JPEG 2000 image of other than 8 unsigned bits a sample")


def _stored_bits(image: ImageFile.ImageFile, stream: BinaryIO) -> int:
    if image.format == "PNG":
        stream.seek(24)  # signature 8, chunk head 8, width 4, height 4
        return stream.read(1)[0]
    if image.format == "PPM":
        return 8 if image.mode in ("L", "RGB") else 16
    return 1 if image.mode == "1" else 8


def _png_colour(stream: BinaryIO) -> int:
    stream.seek(25)  # behind the bit depth
    return stream.read(1)[0]


def _orientation(image: ImageFile.ImageFile, stream: BinaryIO) -> int:
    """Orientation, 1 to 8, of Pillow's image; 1 where its EXIF block cannot be parsed."""
    try:
        if image.format != "PNG":
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
        # Pillow would decode the whole image to find a block behind the pixels
        exif = Image.Exif()
        exif.load(_png_exif(stream))
        return int(exif.get(_ORIENTATION_TAG, 1))
    except Exception:  # the pixels are sound, and viewers show them as stored
        return 1


def _png_exif(stream: BinaryIO) -> bytes:
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return stream.read(length)
        stream.seek(length + 4, os.SEEK_CUR)  # the data and its checksum
    return b""


def _decode_pil(image: ImageFile.ImageFile) -> NDArray[Any]:
    image.load()
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    if image.format == "PPM" and image.mode not in ("L", "RGB"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in _GREY_MODES:
        return np.asarray(image)
    if image.mode in ("P", "PA"):
        # a palette with transparency has no direct conversion to RGB
        return np.asarray(image.convert("RGBA"))[..., :3]
    return np.asarray(image if image.mode == "RGBA" else image.convert("RGB"))[..., :3]


def _decode_16bit_png(stream: BinaryIO) -> NDArray[np.uint16]:
    """Decode all bits with Pillow, which by itself keeps 16 bits of grey but 8 of colour.

    PNG stores the high byte first, and that is the one which Pillow keeps. Told that the samples
    are little-endian, it keeps the other one, and the two together are the whole sample.
    """

    def decoded(raw_mode: str | None) -> NDArray[Any]:
        stream.seek(0)
        image = PngImagePlugin.PngImageFile(stream)
        if raw_mode is not None:
            image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        image.load()
        return np.asarray(image)

    colour = _png_colour(stream)
    if colour == _PNG_GREY:
        return decoded(None).astype(np.uint16)
    if colour == _PNG_GREY_ALPHA:  # four bytes a pixel, taken for red, green, blue and alpha
        high, low = np.moveaxis(decoded("RGBA")[..., :2], -1, 0)
    else:
        high = decoded(None)[..., :3]
        low = decoded("RGB;16L" if colour == _PNG_RGB else "RGBA;16L")[..., :3]
    joined: NDArray[np.uint16] = high.astype(np.uint16) << 8 | low
    return joined


def _decode_tiff(stream: BinaryIO, max_pixels: int) -> tuple[NDArray[Any], int]:
    """Decode with Pillow where 8 bits are enough, else with tifffile; pixels and orientation."""
    with tifffile.TiffFile(stream) as tiff:
        page = _only_page(tiff, max_pixels)
        bits, photometric = page.bitspersample, page.photometric
        deep = bits > 8 or page.sampleformat != _UNSIGNED
        pixels = _decode_deep_tiff(page) if deep else None
        orientation = _tiff_orientation(page)
    if pixels is None:
        stream.seek(0)
        image = TiffImagePlugin.TiffImageFile(stream)
        pixels = _decode_pil(image)
        orientation = _orientation(image, stream)  # 1 once Pillow has turned the image itself
    if deep:
        pixels = _native(pixels)
        if photometric == _WHITE_IS_ZERO:
            if pixels.dtype != np.uint16:
                raise Refused(f"zero means white, which is undefined for {pixels.dtype} samples")
            pixels = np.uint16(2**bits - 1) - pixels
    return pixels, orientation


def _only_page(tiff: tifffile.TiffFile, max_pixels: int) -> Any:
    if not len(tiff.pages):
        raise Refused("truncated: the directory of its pages is missing")
    page: Any = tiff.pages.first
    _check_size(page.imagewidth, page.imagelength, max_pixels)
    # a reduced copy of the image beside it, as cameras and scanners add, is no second page
    listed = sum(1 for other in tiff.pages if not getattr(other, "is_reduced", False))
    stacked = tiff.series[0].size // max(1, page.size)  # planes that share one page entry
    pages = max(listed, stacked, page.imagedepth)
    if pages > 1:
        raise Refused(f"{pages} pages in one file")
    return page


def _tiff_orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION_TAG)
    return 1 if tag is None else int(tag.value)


def _decode_deep_tiff(page: Any) -> NDArray[Any] | None:
    """Decode (H, W) or (H, W, 3); None where Pillow knows the compression and tifffile not."""
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise Refused(f"a {page.bitspersample}-bit TIFF of photometric {page.photometric!r}")
    channels = 3 if page.photometric == _RGB else 1
    samples = page.samplesperpixel
    if samples not in (channels, channels + 1):  # one more is alpha
        raise Refused(f"{samples} channels")
    try:
        pixels: NDArray[Any] = page.asarray(maxworkers=1)
    except ValueError as error:
        # LZW and JPEG need the package imagecodecs; Pillow has them, but colour only in 8 bits
        if "imagecodecs" not in str(error):
            raise
        if samples == 1:
            return None
        raise Refused(f"{page.bitspersample}-bit channels in this compression: {error}") from error
    if samples > 1 and page.planarconfig == _SEPARATE_PLANES:
        pixels = np.moveaxis(pixels, 0, -1)
    if samples == 1:
        return pixels
    return pixels[..., :3] if channels == 3 else pixels[..., 0]


def _native(pixels: NDArray[Any]) -> NDArray[Any]:
    """Bring samples to uint16 or, where that is exact, to float32."""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        return pixels.astype(np.uint16, copy=False)
    with np.errstate(over="ignore"):
        values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise Refused("values that are not finite numbers")
    if pixels.dtype.kind in "iu" and not np.array_equal(values.astype(np.int64), pixels):
        raise Refused(f"{pixels.dtype} values that float32 cannot hold exactly")
    return values
