"""Finding image files below a folder, and naming what else lies there."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scrd.data.formats.unread import UNREAD_SUFFIXES, unread_format
from scrd.data.reading import HEAD, format_of


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in text.split())


PICTURE_SUFFIXES = _suffixes("bmp dib gif j2k jfif jp2 jpe jpeg jpg pgm png pnm ppm tif tiff webp")
_NIFTI_ENDINGS = (".nii", ".nii.gz")
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
# what lies beside images everywhere, and is opened by nobody in search of one
_BESIDE = _suffixes(
    "bval bvec cfg css csv db doc docx hdr htm html ini ipynb js json log md pdf py rst rtf sh "
    "sqlite tsv txt url xls xlsx xml yaml yml"
)


class File(NamedTuple):
    """A file, and the names on the way to it from some folder, its own last."""

    path: Path
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The files below a folder.

    Attributes:
        images: Files that are images, or call themselves so, sorted. Those of a format that is
            not read are among them: reading them says which.
        others: All other files that are not hidden, sorted.
    """

    images: tuple[Path, ...]
    others: tuple[Path, ...]


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files below a folder: the `images` of `look_through`."""
    return list(look_through(folder).images)


def look_through(folder: str | os.PathLike[str]) -> Found:
    """Tell the image files below a folder from the others.

    Links to folders are followed, each folder once. Hidden files and folders are left out, and
    with them the "._" files that macOS leaves on foreign disks. Only files whose suffix does not
    tell are opened.

    Args:
        folder: Where to look, at any depth.

    Returns:
        As images: the files with a usual suffix of pictures (`PICTURE_SUFFIXES`), NIfTI (``.nii``,
        ``.nii.gz``), DICOM (``.dcm``, ``.dicom``, ``.ima``) or an image format that is not read,
        in any case; those with another suffix or none that begin as one of these does, except a
        DICOMDIR; and folders that may not be looked into, whose reading says so.
    """
    images: list[Path] = []
    others: list[Path] = []
    seen: set[str] = set()
    closed: list[Path] = []
    walk = os.walk(folder, followlinks=True, onerror=lambda e: closed.append(Path(e.filename)))
    for parent, folders, files in walk:
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in files:
            if not _hidden(name):
                path = Path(parent, name)
                (images if _holds_image(path) else others).append(path)
    images += closed
    return Found(*(tuple(sorted(paths, key=Path.as_posix)) for paths in (images, others)))


def in_words(others: Sequence[Path]) -> str | None:
    """Name files that were passed over, by suffix.

    None where there is no more than what lies beside images everywhere: tables, notes, programs.
    """
    if all(_usual_beside(path) for path in others):
        return None
    named: dict[str, list[str]] = {}
    for path in others:
        named.setdefault(path.suffix.lower() or "without suffix", []).append(path.name)
    parts = []
    for suffix, names in sorted(named.items(), key=lambda item: -len(item[1])):
        shown = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        parts.append(f"{len(names)} {suffix}{shown if suffix == 'without suffix' else ''}")
    return f"{len(others)} files were passed over, which are no images: {', '.join(parts)}"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _usual_beside(path: Path) -> bool:
    return path.suffix.lower() in _BESIDE or path.stem.upper() in (
        *("README", "LICENSE", "LICENCE", "CHANGELOG", "NOTICE", "VERSION", "DICOMDIR"),
        *("AUTHORS", "CITATION", "MAKEFILE", "CHECKSUMS", "SHA256SUMS", "MD5SUMS"),
    )


def _holds_image(path: Path) -> bool:
    name, suffix = path.name.lower(), path.suffix.lower()
    if suffix in PICTURE_SUFFIXES or name.endswith((*_NIFTI_ENDINGS, *_DICOM_ENDINGS)):
        return True
    if suffix in UNREAD_SUFFIXES:
        return True
    if suffix in _BESIDE or name == "dicomdir":
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return False
        with open(path, "rb") as stream:
            head = stream.read(HEAD)
            stream.seek(0)
            return format_of(stream) is not None or unread_format(head, path.name) is not None
    except OSError:
        return False
