"""The headers of the images that objects are made of, with the patient's part kept aside.

The library that builds the objects checks what it is given and quotes what it does not like. So
it is given a copy of the few attributes that an object takes over, in which the patient's and the
study's are empty; they are put into the finished object as the bytes that they are in the source.
That keeps them out of messages, and keeps odd dates and names as the archive knows them.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from scrd.dicom.uids import derived_uid

if TYPE_CHECKING:
    from scrd.scoring.scorer import Scored
    from scrd.scoring.verdicts import SeriesResult

# of the modules Patient and General Study: what every object must have, and more
REQUIRED_IDENTITY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
_OTHER_IDENTITY = (
    "SpecificCharacterSet", "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "StudyDescription", "TimezoneOffsetFromUTC",
)  # fmt: skip
_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_TAKEN = (
    *_UIDS, "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "BodyPartExamined", "ViewPosition", "PatientOrientation", "Laterality", "ImageLaterality",
)  # fmt: skip
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}


class Unwritable(Exception):
    """An object cannot be made; the message says why, without a value of a header."""


@dataclass(frozen=True)
class Header:
    """What an object takes over from a source file.

    Attributes:
        dataset: References, size and geometry; the patient's and study's attributes are empty.
        identity: The patient's and study's attributes, as in the file.
    """

    dataset: Dataset
    identity: Dataset

    @property
    def person(self) -> bytes:
        """What tells patients apart: ID and issuer, or without an ID name and date of birth."""
        keywords = ("PatientName", "PatientBirthDate")
        if _bytes(self.identity, "PatientID"):
            keywords = ("PatientID", "IssuerOfPatientID")
        return b"\0".join(_bytes(self.identity, keyword) for keyword in keywords)

    @property
    def owner(self) -> str:
        """Patient and study, as a hash: UIDs may be those of another patient's objects as well."""
        study = str(self.dataset.StudyInstanceUID).encode()
        return hashlib.sha256(self.person + b"\0" + study).hexdigest()

    @property
    def plane(self) -> bool:
        """Whether it is one image with a place in the patient."""
        return "ImagePositionPatient" in self.dataset

    @property
    def frames(self) -> int:
        """How many the file has."""
        return int(self.dataset.get("NumberOfFrames", 1))

    @property
    def projection(self) -> bool:
        """Whether it is one image without a place in the patient."""
        return not self.plane and self.frames == 1


@dataclass(frozen=True)
class SourceImage:
    """A scored image and the header of its file.

    Attributes:
        scored: The answer for the image.
        header: Shared by the frames of a file.
    """

    scored: Scored
    header: Header

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID of the file."""
        return str(self.header.dataset.SOPInstanceUID)

    @property
    def frame(self) -> int | None:
        """1-based number of the frame, as DICOM counts; None for a file of one image or frame."""
        frame = self.scored.source.frame
        return None if frame is None or self.header.frames == 1 else frame + 1

    @property
    def part(self) -> str:
        """Tells the frames of a file apart in UIDs."""
        return "" if self.frame is None else str(self.frame)


@dataclass(frozen=True)
class SourceSeries:
    """A series with the headers of its scored images.

    Attributes:
        result: What was found.
        images: The scored images, in the series' order; at least one.
    """

    result: SeriesResult
    images: tuple[SourceImage, ...]

    @property
    def uid(self) -> str:
        """Series Instance UID."""
        return str(self.first.dataset.SeriesInstanceUID)

    @property
    def first(self) -> Header:
        """The header that stands for the series."""
        return self.images[0].header


def read_sources(result: SeriesResult) -> SourceSeries:
    """Read the headers of a series' scored images.

    Raises:
        Unwritable: No image was scored, or a header cannot be read.
    """
    headers: dict[Path, Header] = {}
    images = []
    for scored in result.scored:
        path = scored.source.path
        if path not in headers:
            headers[path] = read_header(path)
        images.append(SourceImage(scored, headers[path]))
    if not images:
        raise Unwritable("no image of the series could be scored")
    return SourceSeries(result, tuple(images))


def read_header(path: Path) -> Header:
    """Read what an object takes over from a DICOM file.

    Raises:
        Unwritable: The file cannot be read, or lacks a UID.
    """
    keywords = (*_TAKEN, *REQUIRED_IDENTITY, *_OTHER_IDENTITY)
    try:
        found = pydicom.dcmread(
            path, force=True, stop_before_pixels=True, specific_tags=list(keywords)
        )
        dataset, identity = Dataset(), Dataset()
        for keyword in _TAKEN:
            if keyword in found and found[keyword].value not in (None, ""):
                dataset[keyword] = found[keyword]
        for keyword in (*REQUIRED_IDENTITY, *_OTHER_IDENTITY):
            _copy_bytes(found, identity, keyword)
    except Exception as error:  # whatever a damaged header makes pydicom raise
        raise Unwritable(f"a header cannot be read again ({type(error).__name__})") from None
    for keyword in _UIDS:
        if keyword not in dataset:
            raise Unwritable(f"a header lacks {keyword}")
    for keyword in REQUIRED_IDENTITY:
        setattr(dataset, keyword, "")
    _share_geometry(dataset)
    header = Header(dataset, identity)
    _complete_plane(dataset, header.owner)
    _complete_compression(dataset, found.file_meta.get("TransferSyntaxUID", ""), path)
    return header


def _bytes(identity: Dataset, keyword: str) -> bytes:
    number = tag_for_keyword(keyword)
    assert number is not None
    value = identity.get_item(number).value if number in identity else b""
    value = value if isinstance(value, bytes) else str(value or "").encode()
    return value.strip(b" \0")


def _copy_bytes(found: Dataset, identity: Dataset, keyword: str) -> None:
    number = tag_for_keyword(keyword)
    assert number is not None
    if number not in found:
        return
    element, vr = found.get_item(number), dictionary_VR(number)
    if isinstance(element, DataElement) or vr == "SQ":
        identity[number] = found[number]
    else:  # text has no byte order; without a VR it could not be written with explicit ones
        identity[number] = element._replace(VR=vr, is_implicit_VR=False, is_little_endian=True)


def _share_geometry(dataset: Dataset) -> None:
    """Say once what all frames say alike, as some makers of enhanced images do not."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence", ())
    if not frames:
        return
    if "SharedFunctionalGroupsSequence" not in dataset:
        dataset.SharedFunctionalGroupsSequence = [Dataset()]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        first = frames[0].get(keyword)
        if keyword not in shared and first and all(f.get(keyword) == first for f in frames):
            setattr(shared, keyword, first)


def _complete_plane(dataset: Dataset, owner: str) -> None:
    """Leave a whole plane or none: half of one is no geometry."""
    plane = ("ImagePositionPatient", "ImageOrientationPatient")
    if not all(keyword in dataset for keyword in plane):
        for keyword in plane:
            dataset.pop(keyword, None)
    if "FrameOfReferenceUID" not in dataset and (
        plane[0] in dataset or "PerFrameFunctionalGroupsSequence" in dataset
    ):
        # positions of one series are comparable with each other, which is all that this says
        uid = derived_uid("frame of reference", f"{owner} {dataset.SeriesInstanceUID}", "")
        dataset.FrameOfReferenceUID = uid


def _complete_compression(dataset: Dataset, transfer_syntax: str, path: Path) -> None:
    """Whoever derives from lossy images must say so (PS3.3, C.7.6.1.1.5), and by how much."""
    if transfer_syntax in _LOSSY:
        dataset.LossyImageCompression = "01"
        if "LossyImageCompressionMethod" not in dataset:
            dataset.LossyImageCompressionMethod = _LOSSY[transfer_syntax]
        if "LossyImageCompressionRatio" not in dataset:
            bits = int(dataset.get("SamplesPerPixel", 1)) * int(dataset.get("BitsAllocated", 8))
            pixels = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames", 1))
            ratio = pixels * bits / 8 / path.stat().st_size
            dataset.LossyImageCompressionRatio = f"{ratio:.3g}"


def changed(header: Dataset, **values: Any) -> Dataset:
    """A copy with other values; None leaves the attribute out.

    A plain copy of a Dataset shares its elements, so that what is set in one is set in both.
    """
    copied = Dataset()
    copied.update(header)
    for keyword, value in values.items():
        copied.pop(keyword, None)
        if value is not None:
            setattr(copied, keyword, value)
    return copied


def disguised(header: Dataset, **values: Any) -> Dataset:
    """The header as that of a secondary capture, which all may be and which needs nothing.

    highdicom knows neither retired nor private kinds of image, and asks of some what an image
    without a place in the patient does not have. :func:`scrd.dicom.labels.finish` undoes it.
    """
    return changed(header, SOPClassUID=SecondaryCaptureImageStorage, **values)


@contextmanager
def silence() -> Iterator[None]:
    """Drop the warnings of pydicom and highdicom, which quote what they warn of."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
