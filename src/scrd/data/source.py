"""What one image is: a file, or one frame of a file, alone or as part of a series."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

APART = " ("
"""Where a UID ends in the name of a study or series that shares it with another one."""

Place = tuple[Path, int | None]
"""File, and 0-based frame or slice in it; None where the file holds one image alone."""


@dataclass(frozen=True)
class Source:
    """One two-dimensional image.

    Attributes:
        path: The file.
        frame: 0-based frame of a multi-frame DICOM file, or slice of a NIfTI volume as
            :mod:`scrd.data.formats.nifti` cuts it; None where the file is one image.
        series: The series that the image belongs to, where that is known.
        pixels: The image itself where it lies in no file, see `as_source`; the path is then a
            name for it.
    """

    path: Path
    frame: int | None = None
    series: Series | None = field(default=None, compare=False, repr=False)
    pixels: NDArray[Any] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """The path, and behind a # the frame."""
        return str(self.path) if self.frame is None else f"{self.path}#{self.frame}"


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one acquisition in geometric order.

    Attributes:
        uid: Its name: the Series Instance UID; the path of a NIfTI file. Where the files of two
            patients or studies share the UID, what tells them apart stands behind it in brackets,
            so that no two series of one listing have one name.
        study: The name of its study, likewise: the Study Instance UID; the path of a NIfTI file.
        patient: An opaque name, "patient 3": equal for equal patients of one listing. None where
            the files do not say.
        places: The N images, ordered along the normal of their common plane where they have one,
            else by instance number, then by name.
        affine: (4, 4) float64, takes (column, row, index in `places`, 1) to patient coordinates
            in mm, x to the left, y to the back, z to the head (DICOM, LPS); None without a
            common geometry, with uneven spacing, and for a single DICOM image.
        problems: What is odd about it, each a sentence without patient data: mixed orientations,
            missing or duplicate slices, uneven spacing.
        format: "DICOM" or "NIfTI".
    """

    uid: str
    study: str
    patient: str | None
    places: tuple[Place, ...]
    affine: NDArray[np.float64] | None = None
    problems: tuple[str, ...] = ()
    format: str = "DICOM"
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _kept: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The N images."""
        return tuple(Source(path, frame, self) for path, frame in self.places)

    @property
    def instance_uid(self) -> str:
        """The Series Instance UID, as the DICOM files have it."""
        return self.uid.partition(APART)[0]

    def window(self, measure: Callable[[Series], tuple[float, float]]) -> tuple[float, float]:
        """The intensities of the whole series that become 0 and 1, measured once.

        Args:
            measure: what to do when they are first asked for, by whatever thread.
        """
        with self._lock:
            if "window" not in self._kept:
                self._kept["window"] = measure(self)
            return self._kept["window"]


AnySource = str | os.PathLike[str] | Source | NDArray[Any]


def as_source(source: AnySource, number: int = 0) -> Source:
    """What one image is: a path is a file that holds one, an array the image itself.

    Args:
        source: A path; a source; or (H, W) grey or (H, W, 3) red, green, blue of any number type,
            which counts as a picture of that depth: 8 bits for uint8, more for all others.
        number: What an array is called by.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, np.ndarray):
        return Source(Path(f"array {number}"), pixels=source)
    return Source(Path(source))
