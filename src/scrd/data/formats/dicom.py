"""DICOM files: which are, what their headers say, and what a DICOMDIR lists.

Nothing here decodes pixels; see :mod:`scrd.data.formats.dicom_pixels`.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.dataset import Dataset

from scrd.data.formats.dicom_decoding import read_format
from scrd.data.formats.dicom_elements import elements, group, number, numbers, text, whole
from scrd.data.formats.dicom_file import opened, parse_elements
from scrd.data.formats.dicom_pixels import is_windowed, oddities, read_pixels, unit
from scrd.data.formats.dicom_quiet import quiet
from scrd.data.formats.guard import MAX_PIXELS, refusing
from scrd.data.formats.info import ImageInfo, Refused
from scrd.data.formats.planes import plane_of
from scrd.errors import ImageError

__all__ = ["DicomHeader", "is_dicom", "read_dicomdir", "read_header", "read_pixels"]

_MAGIC = slice(128, 132)
_SHORT_VRS = frozenset((b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US").split())
_LONGEST_START = 1024  # bytes; of the first element of a file without preamble
_OWN = "scrd"
_CODE = re.compile(r"(?!\d{6})[A-Z0-9 _/.&()+-]{1,32}")
_MAKER = re.compile(r"(?!\d{6})[A-Z0-9 _/.,&()+-]{1,64}")  # "Hologic, Inc."
_ORTHONORMAL = 1e-2  # largest error of a direction cosine's length, and of a right angle

Vector = tuple[float, ...]


@dataclass(frozen=True)
class DicomHeader:
    """What the header of one file says; every array-like is a tuple of floats.

    Attributes:
        path: The file.
        sop_class: SOP Class UID; None where the file does not say, as below.
        sop_uid: SOP Instance UID.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        frame_of_reference: Frame of Reference UID.
        patient: SHA-256, hex, of Patient ID and its issuer: equal for equal patients, never to be
            written anywhere, as an ID can be found by trying.
        person: SHA-256, hex, of what tells patients apart: `patient`, or without an ID name and
            date of birth; empty where the file says nothing. Never to be written anywhere, too.
        named: SHA-256, hex, of the letters of the name, and of the date of birth; likewise.
        own: Written by this software.
        instance_number: Instance Number.
        frames: How many images the file holds.
        orientations: One a frame: direction cosines of a row and of a column, (6,); None where
            the file does not say, or they are no directions.
        positions: One a frame: centre of the first pixel in mm, (3,), patient coordinates.
        keys: One a frame: acquisition, echo (number or ms), time point and b-value, None where
            unknown. Frames at one place whose keys differ are no duplicates.
        tilt: Of the gantry, in degrees; the sign is the maker's.
    """

    path: Path
    sop_class: str | None
    sop_uid: str | None
    study_uid: str | None
    series_uid: str | None
    frame_of_reference: str | None
    patient: str | None
    person: str
    named: tuple[str | None, str | None]
    own: bool
    instance_number: int | None
    frames: int
    orientations: tuple[Vector | None, ...]
    positions: tuple[Vector | None, ...]
    keys: tuple[tuple[float | None, ...], ...]
    tilt: float | None
    _info: ImageInfo | None = field(repr=False)
    _no_image: str | None = field(repr=False)

    @property
    def is_image(self) -> bool:
        """Whether it holds images of a patient, and no report, segmentation, map or dose."""
        return self._info is not None

    @property
    def info(self) -> ImageInfo:
        """Size, depth, unit and acquisition of the images.

        Raises:
            ImageError: The file holds none.
        """
        if self._info is None:
            raise ImageError(self.path, f"not an image of a patient: {self._no_image}")
        return self._info


def is_dicom(stream: BinaryIO) -> bool:
    """Whether a file, at its start, is DICOM, with or without the preamble of part 10."""
    start = stream.read(132)
    if start[_MAGIC] == b"DICM":
        return True
    if len(start) < 8:
        return False
    for order in "<>":
        number_of_group, element = struct.unpack(f"{order}HH", start[:4])
        if number_of_group not in (0x0002, 0x0008):
            continue
        if element and not dictionary_has_tag(number_of_group << 16 | element):
            continue
        (short,) = struct.unpack(f"{order}H", start[6:8])
        (long,) = struct.unpack(f"{order}L", start[4:8])
        explicit = start[4:6] in _SHORT_VRS and short <= _LONGEST_START
        implicit = order == "<" and long <= _LONGEST_START and long % 2 == 0
        if explicit or implicit:
            return True
    return False


def read_header(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> DicomHeader:
    """Read what a file says about its images and their place; no pixel is read.

    Args:
        path: A DICOM file of any kind.
        max_pixels: Larger images, rows times columns times samples, are refused.

    Raises:
        ImageError: The header cannot be read, or announces an image that cannot be; the reason
            quotes nothing that may name a patient.
    """
    path = Path(path)
    with refusing(path, "reading the header"), opened(path) as (parsed, _):
        dataset = parsed.dataset
        patient, named = _patient(dataset), _named(dataset)
        info, frames = None, 1
        if parsed.no_image is None:
            form = read_format(parsed, max_pixels)
            frames = form.frames
            info = ImageInfo(
                form.columns,
                form.rows,
                form.channels,
                form.stored,
                "DICOM",
                unit(dataset) if form.channels == 1 else "stored",
                _code(dataset, "Modality"),
                _code(dataset, "BodyPartExamined"),
                _code(dataset, "ViewPosition"),
                _plane(_orientation(dataset, 0)),
                _spacing(dataset),
                _is_localizer(dataset),
                oddities(dataset, form.photometric, is_float=form.is_float)
                if form.channels == 1
                else (),
                is_windowed(dataset) if form.channels == 1 else None,
                _code(dataset, "Manufacturer", _MAKER),
            )
        return DicomHeader(
            path,
            text(dataset, "SOPClassUID"),
            text(dataset, "SOPInstanceUID"),
            text(dataset, "StudyInstanceUID"),
            text(dataset, "SeriesInstanceUID"),
            text(dataset, "FrameOfReferenceUID"),
            patient,
            patient or _hidden(*filter(None, named)) or "",
            named,
            text(dataset, "Manufacturer") == _OWN,
            whole(dataset, "InstanceNumber"),
            frames,
            tuple(_orientation(dataset, frame) for frame in range(frames)),
            tuple(_position(dataset, frame, frames) for frame in range(frames)),
            tuple(_key(dataset, frame) for frame in range(frames)),
            number(dataset, "GantryDetectorTilt"),
            info,
            parsed.no_image,
        )


def read_dicomdir(path: str | os.PathLike[str]) -> list[Path]:
    """List the files that a DICOMDIR refers to, in its order, missing ones included.

    Raises:
        ImageError: It cannot be read, or refers to a file outside its folder.
    """
    path = Path(path)
    with refusing(path, "reading the directory"), quiet(), open(path, "rb") as stream:
        tag = tag_for_keyword("DirectoryRecordSequence")
        assert tag is not None
        records = elements(parse_elements(stream, [tag]), "DirectoryRecordSequence")
        if records is None:
            raise Refused("not a DICOMDIR: no directory records")
        files = [parts for record in records if (parts := _file_id(record))]
        return [path.parent.joinpath(*parts) for parts in dict.fromkeys(files)]


def _file_id(record: Dataset) -> tuple[str, ...]:
    found = elements(record, "ReferencedFileID")
    parts = (found,) if isinstance(found, str) else tuple(map(str, found or ()))
    parts = tuple(part.strip() for part in parts if part.strip())
    if any(part in (".", "..") or set(part) & set("/\\:\0") for part in parts):
        raise Refused("a DICOMDIR that refers to files outside its folder")
    return parts


def _code(dataset: Dataset, keyword: str, form: re.Pattern[str] = _CODE) -> str | None:
    """A word that messages may quote: a name or a date in its place is none."""
    found = (text(dataset, keyword) or "").upper()
    return found if form.fullmatch(found) else None


def _patient(dataset: Dataset) -> str | None:
    name = text(dataset, "PatientID")
    if name is None:
        return None
    return _hidden(text(dataset, "IssuerOfPatientID") or "", name)


def _named(dataset: Dataset) -> tuple[str | None, str | None]:
    """The name by its letters and digits alone, as spelling varies, and the date of birth."""
    try:
        name = str(elements(dataset, "PatientName") or "")
    except Exception:  # a character set that nobody knows
        name = ""
    letters = "".join(filter(str.isalnum, name)).casefold()
    birth = text(dataset, "PatientBirthDate")
    return _hidden(letters) if letters else None, _hidden(birth) if birth else None


def _hidden(*parts: str) -> str | None:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest() if parts else None


def _is_localizer(dataset: Dataset) -> bool:
    kinds = elements(dataset, "ImageType") or ()
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    return any(str(kind).strip().upper() == "LOCALIZER" for kind in kinds)


def _orientation(dataset: Dataset, frame: int) -> Vector | None:
    place = group(dataset, frame, "PlaneOrientationSequence")
    found = numbers(dataset if place is None else place, "ImageOrientationPatient", 6)
    if found is None:
        return None
    axes = np.reshape(found, (2, 3))
    return found if np.abs(axes @ axes.T - np.eye(2)).max() <= _ORTHONORMAL else None


def _position(dataset: Dataset, frame: int, frames: int) -> Vector | None:
    place = group(dataset, frame, "PlanePositionSequence")
    if place is None and frames > 1:  # one position cannot be that of all frames
        return None
    return numbers(dataset if place is None else place, "ImagePositionPatient", 3)


def _plane(orientation: Vector | None) -> str | None:
    if orientation is None:
        return None
    return plane_of(np.cross(orientation[:3], orientation[3:]))


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    place = group(dataset, 0, "PixelMeasuresSequence")
    for found in (
        numbers(dataset if place is None else place, "PixelSpacing", 2),
        numbers(dataset, "ImagerPixelSpacing", 2),
    ):
        if found is not None and min(found) > 0:
            return found[0], found[1]
    return None


def _key(dataset: Dataset, frame: int) -> tuple[float | None, ...]:
    content = group(dataset, frame, "FrameContentSequence")
    if content is None:
        kept = ("AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue")
        return tuple(number(dataset, keyword) for keyword in kept)
    echo = group(dataset, frame, "MREchoSequence")
    diffusion = group(dataset, frame, "MRDiffusionSequence")
    return (
        number(content, "FrameAcquisitionNumber"),
        None if echo is None else number(echo, "EffectiveEchoTime"),
        number(content, "TemporalPositionIndex"),
        None if diffusion is None else number(diffusion, "DiffusionBValue"),
    )
