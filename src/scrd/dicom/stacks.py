"""Which images of a series go together into one multi-frame object, and its pixel array."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydicom.dataset import Dataset

from scrd.dicom.sources import SourceImage, SourceSeries, Unwritable, changed, disguised

_ORIENTATION_DIGITS = 4  # direction cosines that differ by less are one orientation


@dataclass(frozen=True)
class Stack:
    """Images that one multi-frame object is made of.

    Attributes:
        images: In the series' order.
        datasets: The headers of what they are frames of: as many as `images`, or that of the one
            multi-frame file which holds them all.
        alone: Whether it is one image without a place in the patient: then the object is made of
            that image, and else of the series.
    """

    images: tuple[SourceImage, ...]
    datasets: tuple[Dataset, ...]
    alone: bool

    @property
    def frames(self) -> int:
        """N: all frames of the files, also those without a score."""
        return max(len(self.datasets), int(self.datasets[0].get("NumberOfFrames", 1)))

    def array(self, value: Callable[[SourceImage], NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
        """The values of all images on the pixels of their frames.

        Args:
            value: Gives the (H, W) values of an image.
            dtype: Of the result.

        Returns:
            (N, H, W); frames without a score are 0.

        Raises:
            Unwritable: Values and frame differ in size.
        """
        shape = (int(self.datasets[0].Rows), int(self.datasets[0].Columns))
        found = np.zeros((self.frames, *shape), dtype)
        whole = len(self.datasets) == 1 and self.frames > 1
        for i, image in enumerate(self.images):
            values = value(image)
            if values.shape != shape:
                raise Unwritable("an anomaly map is not of the size that the header says")
            found[(image.frame or 1) - 1 if whole else i] = values
        return found

    def check_whole(self) -> None:
        """Raise Unwritable where a map that covers all pixels would say what nobody knows."""
        if self.alone:
            raise Unwritable("an image of the series has no place in the patient")
        missing = self.frames - len(self.images)
        if missing:
            raise Unwritable(f"{missing} of the file's {self.frames} frames have no score")

    def identity(self, series: SourceSeries, number: int) -> dict[str, str]:
        """What its object is made of, as :func:`scrd.dicom.labels.labels` takes it."""
        if self.alone:
            return {"source": self.images[0].sop_uid, "part": self.images[0].part}
        return {"source": series.uid, "part": "" if number == 1 else str(number)}

    def point_at_frame(self, made: Dataset) -> None:
        """Name the frame, if it is one, in the references of an object made of an image alone."""
        frame = self.images[0].frame
        if frame is None:
            return
        for group in made.PerFrameFunctionalGroupsSequence:
            for derivation in group.DerivationImageSequence:
                for source in derivation.SourceImageSequence:
                    source.ReferencedFrameNumber = frame


def stacks(series: SourceSeries) -> Iterator[Stack]:
    """Divide the images of a series.

    The frames of a multi-frame file with a place in the patient are a stack. So are single images
    of one size, spacing, orientation and frame of reference; where several lie in one place, as in
    the phases of a dynamic series, they are in different stacks. Any other image is alone.

    Raises:
        Unwritable: A header lacks what a place in the patient takes.
    """
    planes: dict[tuple[Any, ...], list[SourceImage]] = defaultdict(list)
    files: dict[str, list[SourceImage]] = defaultdict(list)
    taken: Counter[tuple[Any, ...]] = Counter()
    for image in series.images:
        header = image.header.dataset
        if image.header.frames == 1 and image.header.plane:
            plane = _plane(header)
            place = (*plane, *header.ImagePositionPatient)
            key = (*plane, taken[place])
            planes[key].append(image)
            taken[place] += 1
        elif "PerFrameFunctionalGroupsSequence" in header:
            files[image.sop_uid].append(image)
        else:
            yield Stack((image,), (_alone(header),), alone=True)
    for images in planes.values():
        yield Stack(tuple(images), tuple(_in_plane(images)), alone=False)
    for images in files.values():
        header = images[0].header.dataset
        _check_distinct(header)
        yield Stack(tuple(images), (header,), alone=False)


def volumes_only(series: SourceSeries) -> None:
    """Raise Unwritable unless the series is CT or MR."""
    modality = series.first.dataset.get("Modality", "")
    if modality not in ("CT", "MR"):
        raise Unwritable("written for CT and MR only")


def _plane(header: Dataset) -> tuple[Any, ...]:
    """What images of one stack have in common."""
    if "PixelSpacing" not in header:
        raise Unwritable("an image of the series has no Pixel Spacing")
    cosines = (round(float(x), _ORIENTATION_DIGITS) for x in header.ImageOrientationPatient)
    size = (header.Rows, header.Columns)
    return (header.SOPClassUID, header.FrameOfReferenceUID, *size, *header.PixelSpacing, *cosines)


def _check_distinct(header: Dataset) -> None:
    """Raise Unwritable where a file has two frames in one place, which highdicom refuses."""
    positions = [
        tuple(plane.ImagePositionPatient)
        for frame in header.PerFrameFunctionalGroupsSequence
        for plane in frame.get("PlanePositionSequence", ())
    ]
    if len(set(positions)) < len(positions):
        raise Unwritable("several frames of the file lie in one place")


def _in_plane(images: list[SourceImage]) -> Iterator[Dataset]:
    """The headers, with the first one's orientation: an object has one for all its frames."""
    orientation = images[0].header.dataset.ImageOrientationPatient
    for image in images:
        yield changed(image.header.dataset, ImageOrientationPatient=orientation)


def _alone(header: Dataset) -> Dataset:
    """The header as that of one image without a place."""
    return disguised(
        header, NumberOfFrames=None, FrameOfReferenceUID=None, ImagePositionPatient=None
    )
