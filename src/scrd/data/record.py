"""One image of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scrd.data.source import Series, Source

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    Attributes:
        path: Absolute path of the file, which need not exist.
        name: The path as the manifest has it, or relative to the folder, with forward slashes; of
            a frame or slice with its number behind a #.
        label: 0 normal, 1 abnormal.
        kind: Name of the class, such as "notumor" or "glioma".
        split: "train" or "test".
        group: What must not be torn apart by a split: the patient, else the group, else the
            study of the manifest, else the patient or study that a DICOM file names (patients
            under running numbers), else the NIfTI file; None where nothing is known.
        mask: Absolute path of an image that is non-zero where the anomaly is, if there is one.
        boxes: Boxes around the anomalies, each (x_min, y_min, x_max, y_max) in pixels of the
            source image, edges, origin at the top left.
        attributes: The other columns of the manifest, `patient`, `group` and `study` included.
        frame: 0-based frame or slice, see :class:`scrd.data.source.Source`.
        series: The series that a DICOM or NIfTI image belongs to.
    """

    path: Path
    name: str
    label: int
    kind: str
    split: str
    group: str | None = None
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    frame: int | None = None
    series: Series | None = field(default=None, compare=False, repr=False)

    @property
    def source(self) -> Source:
        """What to read."""
        return Source(self.path, self.frame, self.series)

    @property
    def series_name(self) -> str:
        """Name of the series; of an image alone, the image's own."""
        if self.series is not None:
            return self.series.uid
        return self.attributes.get("series") or self.name

    @property
    def study(self) -> str:
        """Name of the examination; of an image alone, the image's own."""
        if self.series is not None:
            return self.series.study
        return self.attributes.get("study") or self.name
