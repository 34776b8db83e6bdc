"""Lossless and 12-bit JPEG for pydicom, by imagecodecs: a plug-in of its decoders.

pydicom itself decodes these by libraries under the GPL, or that abort the process on broken data.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from pydicom.pixels.decoders.base import Decoder, DecodeRunner
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

DECODER_DEPENDENCIES = {
    uid: ("numpy", "imagecodecs") for uid in (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
}
"""Transfer syntaxes that are decoded here; pydicom asks for this table."""

_LABEL = "imagecodecs"
_lock = Lock()


def register(decoder: Decoder) -> None:
    """Offer this plug-in to one of pydicom's decoders, once, if it decodes its transfer syntax."""
    with _lock:
        known = (*decoder.available_plugins, *decoder.missing_dependencies)
        if decoder.UID in DECODER_DEPENDENCIES and not any(p.startswith(_LABEL) for p in known):
            decoder.add_plugin(_LABEL, (__name__, "_decode_frame"))


def is_available(uid: str) -> bool:
    """Whether imagecodecs is there and can decode a transfer syntax; pydicom asks for it."""
    try:
        import imagecodecs
    except ImportError:
        return False
    return uid in DECODER_DEPENDENCIES and bool(imagecodecs.JPEG8.available)


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame; colour stays as it is stored, for pydicom to convert."""
    import imagecodecs

    options: dict[str, Any] = {}
    if runner.samples_per_pixel > 1:
        options = {"colorspace": "RGB", "outcolorspace": "RGB"}  # which converts nothing
        runner.set_option("planar_configuration", 0)
    array = imagecodecs.jpeg8_decode(src, **options)
    runner.set_option("bits_allocated", 8 * array.itemsize)
    return bytearray(array.astype(array.dtype.newbyteorder("<")).tobytes())
