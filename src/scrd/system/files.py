"""Files that are there whole or not at all, places that can be written to, names that fit."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scrd.errors import ScrdError

LONGEST_NAME = 255
"""Bytes that common file systems allow a name."""


class PlaceError(ScrdError):
    """A place cannot be written to; the message names it and the cause."""


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary file beside ``path``, which takes its place when the block ends well.

    Args:
        path: the file to write; its folder is made.
        durable: have the content on the disk before it takes the place.

    Yields:
        The temporary file's path, in the same folder, of a short name. It is removed where the
        block fails, and what was at ``path`` before is left.

    Raises:
        OSError: the place cannot be written to; ``filename`` is ``path``.
    """
    temporary = temporary_beside(path)
    try:
        with naming(path, instead_of=temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                with open(temporary, "rb+") as f:
                    os.fsync(f.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Let an operating system's refusal name ``path``.

    A failed write has no name, and that of a temporary file means nothing to anybody.

    Args:
        path: what is being written.
        instead_of: the temporary file or folder in its place.

    Raises:
        OSError: with ``path`` for a file name, where it had none or one of these.
    """
    try:
        yield
    except OSError as e:
        name = None if e.filename is None else Path(os.fsdecode(e.filename))
        temporary = instead_of is not None and name is not None and name.is_relative_to(instead_of)
        if e.errno is not None and (name is None or temporary):
            raise type(e)(e.errno, e.strerror or "cannot be written", str(path)) from e
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder``, which takes its place when the block ends well.

    Yields:
        The folder to write into, empty. It is removed where the block fails; what was at
        ``folder`` before goes only when the new one is there.
    """
    name = safe_name(folder.name, LONGEST_NAME - len(".writing"))
    building, older = (folder.with_name(f"{name}.{end}") for end in ("writing", "older"))
    for left in (building, older):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        with naming(folder, instead_of=building):
            building.mkdir(parents=True)
            yield building
            if folder.exists():
                os.replace(folder, older)
            try:
                os.replace(building, folder)
            except OSError:
                if older.exists():
                    older.rename(folder)
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder that nobody else has and every file system takes."""
    return path.with_name(f".scrd-{secrets.token_hex(6)}.tmp")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all.

    Bytes of a file name that are not UTF-8 are written as they are.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def cause(error: OSError) -> str:
    """Place and cause of an operating system's refusal, in a line."""
    reason = error.strerror or str(error) or type(error).__name__
    name = error.filename2 or error.filename
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    return f"{name}: {reason}" if isinstance(name, str) else reason


def try_folder(folder: Path, *, outside: Iterable[Path] = ()) -> None:
    """See whether a folder can be made and written to, before the work; nothing is left of it.

    Args:
        folder: where results are to go.
        outside: folders of input, in which results would be taken for input the next time.

    Raises:
        PlaceError: it cannot, or lies in one of these.
    """
    place = folder.resolve()
    for source in outside:
        if source.is_dir() and place.is_relative_to(source.resolve()):
            raise PlaceError(
                f"{folder}: lies in {source}, which is read: the results would be taken for input "
                "the next time; choose a place outside"
            )
    absent = []
    for part in (place, *place.parents):
        if os.path.lexists(part):
            break
        absent.append(part)
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe = temporary_beside(place / "probe")
        try:
            probe.write_bytes(bytes(4096))  # a full disk still takes an empty file
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        reason = e.strerror or str(e)
        if isinstance(e, FileExistsError):
            reason = "a file is there, not a folder"
        raise PlaceError(f"{folder}: cannot be written to: {reason}") from e
    finally:
        for part in absent:
            with suppress(OSError):
                part.rmdir()


def safe_name(name: str, room: int = LONGEST_NAME) -> str:
    """A file name like ``name`` that every file system takes and every terminal shows.

    Control characters and bytes that are not UTF-8 become an underscore, and the middle of a long
    name is left out; a few digits of its hash then keep it apart from others.

    Args:
        name: one part of a path.
        room: bytes that it may have in UTF-8.
    """
    told = os.fsencode(name).decode("utf-8", "surrogateescape")
    clean = "".join(c if c.isprintable() else "_" for c in told)
    if clean == told and len(clean.encode()) <= room:
        return name
    mark = "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    short = clean.encode()[: room - len(mark)].decode("utf-8", "ignore")
    return os.fsdecode((short.rstrip(" .") + mark).encode())


def printable(text: str) -> str:
    """The text as it can be drawn: what is not UTF-8 becomes a question mark."""
    return os.fsencode(text).decode("utf-8", "replace")
