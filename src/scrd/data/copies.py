"""DICOM files under one SOP Instance UID: copies of one image, or different ones.

A UID ought to name one image for ever. Exports, phantoms and corrections break that, so files are
compared before one of them is called a copy.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from scrd.errors import ImageError

if TYPE_CHECKING:
    from scrd.data.formats.dicom import DicomHeader


def without_copies(
    headers: Sequence[DicomHeader],
) -> tuple[list[DicomHeader], list[ImageError]]:
    """Leave out the files that hold the same image as one before them.

    Two files hold the same image if they name the same patient, study, series and instance, and
    their bytes agree; or what their headers say of place and kind, and all grey values once
    decoded, as after another compression. Without a SOP Instance UID only a file that is met
    twice, by a link or another spelling of its path, is a copy.

    Args:
        headers: Of images, in any order.

    Returns:
        The rest, in the same order; and for each copy its path and what it is a copy of.
    """
    groups: dict[Hashable, list[DicomHeader]] = {}
    for header in headers:
        name = header.sop_uid or os.path.realpath(header.path)
        key = (header.person, header.study_uid, header.series_uid, name)
        groups.setdefault(key, []).append(header)
    copies: dict[int, ImageError] = {}
    for alike in groups.values():
        kept: list[_File] = []
        for file in map(_File, alike if len(alike) > 1 else ()):
            first = next((k for k in kept if k.holds_image_of(file)), None)
            if first is None:
                kept.append(file)
            else:
                reason = f"the same image as {first.header.path}; it is used once"
                copies[id(file.header)] = ImageError(file.header.path, reason)
    return [h for h in headers if id(h) not in copies], list(copies.values())


@dataclass(frozen=True)
class _File:
    header: DicomHeader

    def holds_image_of(self, other: _File) -> bool:
        one, two = self.header, other.header
        if _said(one) != _said(two):
            return False
        try:
            return filecmp.cmp(one.path, two.path, shallow=False) or self.values == other.values
        except (ImageError, OSError):  # reading the image says what is wrong with it
            return False

    @cached_property
    def values(self) -> bytes:
        """SHA-256 of the decoded values of all frames."""
        from scrd.data.formats.dicom import read_pixels

        digest = hashlib.sha256()
        for frame in range(self.header.frames):
            pixels = read_pixels(self.header.path, frame)
            digest.update(repr((pixels.shape, pixels.dtype)).encode())
            digest.update(pixels.tobytes())
        return digest.digest()


def _said(header: DicomHeader) -> Hashable:
    """What the header says of an image beside its values."""
    return (
        header.instance_number,
        header.frames,
        header.frame_of_reference,
        header.orientations,
        header.positions,
        header.keys,
        header.info,
    )
