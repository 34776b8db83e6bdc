import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def png16() -> Callable[..., bytes]:
    """A writer of 16-bit PNG, which neither Pillow nor tifffile have for colour."""

    def encode(pixels: np.ndarray, interlaced: bool = False, exif: bytes = b"") -> bytes:
        """Write a 16-bit PNG by the book (ISO/IEC 15948), filter "up", EXIF behind the pixels."""

        def chunk(kind: bytes, data: bytes) -> bytes:
            checksum = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + checksum

        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        height, width, channels = pixels.shape
        steps = [(0, 0, 1, 1)]
        if interlaced:
            steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4)]
            steps += [(1, 0, 2, 2), (0, 1, 1, 2)]
        rows = b""
        for x, y, dx, dy in steps:
            part = np.ascontiguousarray(pixels[y::dy, x::dx].astype(">u2"))
            if part.size:
                previous = np.zeros(part[0].nbytes, np.uint8)
                for row in part:
                    row_bytes = np.frombuffer(row.tobytes(), np.uint8)
                    rows += b"\2" + (row_bytes - previous).tobytes()
                    previous = row_bytes
        colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, int(interlaced))
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
        chunks += chunk(b"eXIf", exif) if exif else b""
        return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")

    return encode
