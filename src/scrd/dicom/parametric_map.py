"""Parametric maps: the anomaly map itself, in its own values, on the source voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset

from scrd.dicom.codes import ANOMALY_MAP, NO_UNITS
from scrd.dicom.labels import PM, finish, labels
from scrd.dicom.orientation import laterality
from scrd.dicom.sources import SourceImage, SourceSeries
from scrd.dicom.stacks import Stack, stacks, volumes_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrd.scoring.scorer import Scorer


def parametric_maps(
    series: SourceSeries, detector: Scorer
) -> Iterator[Callable[[], Dataset | None]]:
    """Anomaly maps of CT and MR as 32-bit floating point, without unit.

    The window is the common colour scale of the heat maps, `Calibration.map_scale`.

    Yields:
        What makes an object; one a stack, see :func:`scrd.dicom.stacks.stacks`.

    Raises:
        Unwritable: Neither CT nor MR. highdicom 0.28 makes no parametric map of an image without
            frame of reference.
    """
    volumes_only(series)
    for number, stack in enumerate(stacks(series), 1):
        yield partial(_parametric_map, series, stack, number, detector)


def _parametric_map(series: SourceSeries, stack: Stack, number: int, detector: Scorer) -> Dataset:
    def values(image: SourceImage) -> NDArray[np.float32]:
        return detector.source_map(image.scored)

    stack.check_whole()
    low, high = detector.calibration.map_scale
    pixels = stack.array(values, np.float32)
    made = ParametricMap(
        source_images=stack.datasets,
        pixel_array=pixels,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="ANOMALY",
                lut_explanation="Anomaly map, 0 is normal",
                unit=NO_UNITS,
                value_range=(float(pixels.min()), float(max(pixels.max(), pixels.min() + 1))),
                quantity_definition=ANOMALY_MAP,
            )
        ],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=(low + high) / 2,
                window_width=high - low,
                voi_lut_function="LINEAR_EXACT",  # the plain one has no width below 1
            )
        ],
        content_label="ANOMALY",
        content_description="Anomaly map, 0 is normal; research use only",
        **labels(
            PM,
            detector,
            series.first,
            series_source=series.uid,
            number=number,
            **stack.identity(series, number),
        ),
    )
    made.Laterality = laterality(series.first.dataset)
    return finish(made, series.images)
