"""Secondary captures: the heat map over an image, as a colour picture that every viewer opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from scrd.dicom.codes import SOURCE_IMAGE
from scrd.dicom.labels import SC, finish, labels
from scrd.dicom.orientation import laterality, patient_orientation
from scrd.dicom.sources import SourceImage, SourceSeries, Unwritable

if TYPE_CHECKING:
    from scrd.scoring.scorer import Scorer

_ALL_UP_TO, _MOST = 4, 16


def overlays(series: SourceSeries, detector: Scorer) -> Iterator[Callable[[], Dataset | None]]:
    """Overlays of all images of a small series, and of a large one of those that say most.

    Of more than `_ALL_UP_TO` images it is the flagged ones, at most the `_MOST` with the highest
    scores; where none is flagged, the image with the highest score.

    Yields:
        What makes an object.
    """
    images = list(series.images)
    if len(images) > _ALL_UP_TO:
        images.sort(key=lambda image: (not image.scored.flag, -image.scored.score))
        flagged = sum(bool(image.scored.flag) for image in images)
        images = images[: min(max(flagged, 1), _MOST)]
    for number, image in enumerate(images, 1):
        yield partial(_overlay, series, image, number, detector)


def _overlay(series: SourceSeries, image: SourceImage, number: int, detector: Scorer) -> Dataset:
    from scrd.errors import ImageError
    from scrd.report.overlay import draw

    header = image.header.dataset
    title = "Anomaly map" if image.frame is None else f"Anomaly map, frame {image.frame}"
    try:
        picture = np.asarray(draw(detector, image.scored, title))
    except ImageError as error:
        raise Unwritable(error.reason) from None
    made = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=str(header.StudyInstanceUID),
        patient_orientation=("L", "F"),  # it takes none that is unknown or oblique twice
        **labels(
            SC,
            detector,
            series.first,
            series_source=series.uid,
            source=image.sop_uid,
            part=image.part,
            number=number,
        ),
    )
    made.PatientOrientation = list(patient_orientation(header) or ())
    made.Laterality = laterality(header)
    made.BurnedInAnnotation = "NO"
    made.DerivationDescription = "Source image beside itself under its anomaly map"
    made.SourceImageSequence = Sequence([_reference(image)])
    for keyword in (
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
    ):
        if keyword in header:
            made[keyword] = header[keyword]
    return finish(made, [image])


def _reference(image: SourceImage) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.header.dataset.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.sop_uid
    if image.frame is not None:
        reference.ReferencedFrameNumber = image.frame
    purpose = Dataset()
    purpose.CodeValue = SOURCE_IMAGE.value
    purpose.CodingSchemeDesignator = SOURCE_IMAGE.scheme_designator
    purpose.CodeMeaning = SOURCE_IMAGE.meaning
    reference.PurposeOfReferenceCodeSequence = Sequence([purpose])
    return reference
