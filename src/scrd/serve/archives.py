"""Zips of studies, unpacked with a lid on: in number, in bytes, in how far they swell."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

from scrd.serve.limits import Limits
from scrd.serve.uploads import Received, Refused, text_of

_BLOCK = 1 << 20


def unpack(received: Received, limits: Limits) -> None:
    """Put the files of each zip in the place of the zip; other files stay.

    Folders, hidden files and what macOS leaves beside files are passed over. Names are kept as
    texts: no member is written under its own.

    Args:
        received: changed.
        limits: how many files, how many bytes, and how much larger than the zip they may be.

    Raises:
        Refused: a zip is broken, locked, holds a zip, or goes beyond the limits.
        OSError: the disk is full.
    """
    unpacked = 0
    for i in range(len(received.names)):
        path = received.folder / str(i)
        with open(path, "rb") as stream:
            if stream.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
                continue
        packed = path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if _wanted(m)]
                if not members:
                    raise Refused(422, "a zip holds no file")
                if len(received.names) - 1 + len(members) > limits.files:
                    raise Refused(413, f"more than {limits.files} files")
                if any(member.flag_bits & 1 for member in members):
                    raise Refused(422, "a zip is locked with a password")
                for member in members:
                    number = len(received.names)
                    received.names.append(text_of(member.filename.encode("utf-8", "replace")))
                    unpacked = _member(
                        archive, member, received.folder / str(number), unpacked, packed, limits
                    )
        except Refused:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError):
            raise Refused(422, "a zip is broken") from None
        except NotImplementedError:
            raise Refused(422, "a zip is packed in a way that is not read") from None
        received.size -= packed
        path.unlink()
    received.size += unpacked
    _close_gaps(received)


def _wanted(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.replace("\\", "/").split("/")
    hidden = any(p.startswith(".") and p.strip(".") or p == "__MACOSX" for p in parts)
    return not member.is_dir() and not hidden


def _member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    path: Path,
    before: int,
    packed: int,
    limits: Limits,
) -> int:
    """Write one member; returns the bytes that were unpacked so far.

    What the zip says of its sizes is not believed.
    """
    total = before
    with archive.open(member) as source, open(path, "wb") as file:
        while block := source.read(_BLOCK):
            if file.tell() == 0 and block[:4] == b"PK\x03\x04":
                raise Refused(422, "a zip holds a zip")
            total += len(block)
            if total > limits.unzipped_bytes:
                raise Refused(413, f"a zip of more than {limits.unzipped_bytes:,} bytes, unpacked")
            if total > limits.unzip_free_bytes and total > limits.unzip_ratio * packed:
                raise Refused(
                    413, f"a zip that swells to more than {limits.unzip_ratio:g} times its size"
                )
            file.write(block)
    return total


def _close_gaps(received: Received) -> None:
    """Number the files from 0 again."""
    kept = [i for i in range(len(received.names)) if (received.folder / str(i)).exists()]
    for number, i in enumerate(kept):
        if number != i:
            os.rename(received.folder / str(i), received.folder / str(number))
    received.names = [received.names[i] for i in kept]
