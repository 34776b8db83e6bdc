"""Segmentation objects: where an anomaly map lies above the calibrated threshold, and its heat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset

from scrd.dicom.codes import ABNORMAL_STRUCTURE, ARTIFICIAL_INTELLIGENCE
from scrd.dicom.labels import FSEG, MAKER, SEG, Kind, finish, labels, model_hash
from scrd.dicom.orientation import patient_orientation
from scrd.dicom.sources import SourceImage, SourceSeries
from scrd.dicom.stacks import Stack, stacks, volumes_only
from scrd.system.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrd.scoring.scorer import Scorer

_LEVELS = 255  # of a fractional segmentation


def segmentations(series: SourceSeries, detector: Scorer) -> Iterator[Callable[[], Dataset | None]]:
    """Binary segmentations: pixels whose anomaly is above `Calibration.map_threshold`.

    One a stack (:func:`scrd.dicom.stacks.stacks`), so one for a CT or MR series and one for each
    image of a projection series. Frames without such a pixel are left out.

    Yields:
        What makes an object, or None where no pixel is above the threshold.
    """
    threshold = detector.calibration.map_threshold

    def above(image: SourceImage) -> NDArray[np.bool_]:
        return np.asarray(detector.source_map(image.scored) > threshold)

    for number, stack in enumerate(stacks(series), 1):
        yield partial(_binary, series, stack, number, detector, above)


def fractional_segmentations(
    series: SourceSeries, detector: Scorer
) -> Iterator[Callable[[], Dataset | None]]:
    """Fractional segmentations of CT and MR: the place of each pixel in the common colour scale.

    0 and 1 are the ends of `Calibration.map_scale`, in steps of 1/255. DICOM knows fractions as
    probability and as occupancy only; this is neither, and the objects say so.

    Yields:
        What makes an object.

    Raises:
        Unwritable: Neither CT nor MR.
    """
    volumes_only(series)
    low, high = detector.calibration.map_scale

    def heat(image: SourceImage) -> NDArray[np.float32]:
        level = (detector.source_map(image.scored) - low) / (high - low)
        return np.asarray(level, np.float32).clip(0, 1)

    for number, stack in enumerate(stacks(series), 1):
        yield partial(_fractional, series, stack, number, detector, heat)


def _binary(
    series: SourceSeries,
    stack: Stack,
    number: int,
    detector: Scorer,
    above: Callable[[SourceImage], NDArray[np.bool_]],
) -> Dataset | None:
    mask = stack.array(above, np.uint8)
    if not mask.any():
        return None
    text = f"Anomaly map above {detector.calibration.map_threshold:.4g}; research use only"
    return _segmentation(series, stack, number, detector, SEG, mask, text)


def _fractional(
    series: SourceSeries,
    stack: Stack,
    number: int,
    detector: Scorer,
    heat: Callable[[SourceImage], NDArray[np.float32]],
) -> Dataset:
    stack.check_whole()
    text = "Colour scale of the anomaly map, no probability; research use"
    return _segmentation(series, stack, number, detector, FSEG, stack.array(heat, np.float32), text)


def _segmentation(
    series: SourceSeries,
    stack: Stack,
    number: int,
    detector: Scorer,
    kind: Kind,
    pixels: NDArray[np.uint8] | NDArray[np.float32],
    description: str,
) -> Dataset:
    calibration = detector.calibration
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Anomaly",
        segmented_property_category=ABNORMAL_STRUCTURE,
        segmented_property_type=ABNORMAL_STRUCTURE,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=MAKER,
            family=ARTIFICIAL_INTELLIGENCE,
            version=__version__,
            parameters={
                "model": model_hash(detector),
                "false alarm rate": f"{calibration.false_alarm_rate:g}",
                "promised by": calibration.promise,
                "map threshold": f"{calibration.map_threshold:.9g}",
                "map scale": "{:.9g} to {:.9g}".format(*calibration.map_scale),
            },
        ),
    )
    made = Segmentation(
        source_images=stack.datasets,
        pixel_array=pixels,
        segmentation_type="BINARY" if kind is SEG else "FRACTIONAL",
        segment_descriptions=[segment],
        max_fractional_value=_LEVELS,
        content_label="ANOMALY",
        content_description=description,
        **labels(
            kind,
            detector,
            series.first,
            series_source=series.uid,
            number=number,
            **stack.identity(series, number),
        ),
    )
    if stack.alone:
        stack.point_at_frame(made)
        made.PatientOrientation = list(patient_orientation(stack.datasets[0]) or ())
    return finish(made, series.images)
