"""The structured report of a study: scores, p-values and flags, by TID 1500.

One Comprehensive 3D SR a study (the SOP class that IHE AI Results names), with a measurement
group for the verdict on the study, one for each series, and one for each image; of a volume or a
multi-frame file only for the `_LISTED` images with the highest scores. Every
scored image is in the evidence. What has no code is text below "Qualitative Evaluations": intended
use, problems of a series, doubts about images, images without a score.

A score is written as decimal string of at most 16 characters (Numeric Value, VR DS) and beside it
as 64-bit floating point (Floating Point Value), which is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset

from scrd.dicom import codes
from scrd.dicom.labels import MAKER, SR, finish, labels, model_hash
from scrd.dicom.sources import SourceImage, SourceSeries, Unwritable, disguised
from scrd.dicom.uids import derived_uid
from scrd.errors import ImageError
from scrd.system.version import __version__

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

    from scrd.scoring.scorer import Scorer
    from scrd.scoring.verdicts import SeriesResult, StudyResult, Verdict

_LISTED = 10
_CONTAINS = RelationshipTypeValues.CONTAINS


def report(study: StudyResult, sources: Sequence[SourceSeries], detector: Scorer) -> Dataset:
    """Make the report of a study.

    Args:
        study: What was found.
        sources: The headers of those series of which an image was scored.
        detector: What found it.

    Raises:
        Unwritable: No image of the study was scored.
    """
    if not sources or study.verdict is None:
        raise Unwritable("no image of the study could be scored")
    header = sources[0].first
    uid = str(header.dataset.StudyInstanceUID)
    groups = _Groups(detector, header.owner)
    found = [groups.verdict("study", uid, study.verdict)]
    for series in sources:
        if series.result.verdict is not None:
            found.append(groups.verdict("series", series.uid, series.result.verdict))
        found += [groups.image(image) for image in _listed(series)]
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(detector)),
        procedure_reported=codes.IMAGING_PROCEDURE,
        imaging_measurements=found,
    )
    content[0].ContentSequence.append(_texts(study, detector.calibration.silence))
    images = [image for series in sources for image in series.images]
    evidence = {image.sop_uid: disguised(image.header.dataset) for image in images}
    made = Comprehensive3DSR(
        evidence=list(evidence.values()),
        content=content[0],
        is_complete=True,
        coding_schemes=[codes.scheme()],
        **labels(
            SR,
            detector,
            header,
            series_source=uid,
            source=uid,
            part="",
            number=1,
        ),
    )
    return finish(made, images)


class _Groups:
    """Measurement groups (TID 1501) by one detector."""

    def __init__(self, detector: Scorer, owner: str) -> None:
        self._owner = owner
        calibration = detector.calibration
        self._model = model_hash(detector)
        self._algorithm = AlgorithmIdentification(
            name=MAKER,
            version=__version__,
            parameters=[
                f"model = {self._model}",
                f"false alarm rate = {calibration.false_alarm_rate:g}",
                f"promised by = {calibration.promise}",
                f"pooling = {calibration.pooling}",
                f"score threshold = {calibration.threshold!r}",
            ],
            family=codes.ARTIFICIAL_INTELLIGENCE,
            manufacturer=MAKER,
        )

    def verdict(
        self, level: str, uid: str, verdict: Verdict
    ) -> MeasurementsAndQualitativeEvaluations:
        """The group of a study or a series."""
        # what has no p-value is refused before
        assert verdict.p_value is not None and verdict.flag is not None
        return self._group(
            level,
            uid,
            measured=[
                Measurement(codes.SCORE, float(verdict.score), codes.NO_UNITS),
                Measurement(codes.P_VALUE, float(verdict.p_value), codes.NO_UNITS),
                Measurement(codes.IMAGES, verdict.images, codes.NO_UNITS),
            ],
            evaluated=[
                (codes.FLAG, codes.FLAGS[verdict.flag]),
                (codes.POOLING, codes.POOLINGS[verdict.how]),
            ],
        )

    def image(self, image: SourceImage) -> MeasurementsAndQualitativeEvaluations:
        """The group of an image, with a reference to it."""
        scored, header = image.scored, image.header.dataset
        assert scored.p_value is not None and scored.flag is not None
        reference = SourceImageForMeasurementGroup(
            header.SOPClassUID,
            header.SOPInstanceUID,
            None if image.frame is None else [image.frame],
        )
        return self._group(
            "image",
            f"{image.sop_uid} {image.part}".strip(),
            measured=[
                Measurement(codes.SCORE, float(scored.score), codes.NO_UNITS),
                Measurement(codes.P_VALUE, float(scored.p_value), codes.NO_UNITS),
            ],
            evaluated=[(codes.FLAG, codes.FLAGS[scored.flag])],
            reference=reference,
        )

    def _group(
        self,
        level: str,
        uid: str,
        measured: list[Measurement],
        evaluated: list[tuple[CodedConcept, CodedConcept]],
        reference: SourceImageForMeasurementGroup | None = None,
    ) -> MeasurementsAndQualitativeEvaluations:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(
                uid=derived_uid("tracking", f"{self._owner} {uid}", self._model, level),
                identifier=f"{level} {uid}",
            ),
            algorithm_id=self._algorithm,
            measurements=measured,
            qualitative_evaluations=[
                QualitativeEvaluation(name, value)
                for name, value in ((codes.LEVEL, codes.LEVELS[level]), *evaluated)
            ],
            source_images=None if reference is None else [reference],
        )


def _listed(series: SourceSeries) -> list[SourceImage]:
    """The images with a group of their own, in the series' order."""
    if series.first.projection:
        return list(series.images)
    order = sorted(range(len(series.images)), key=lambda i: -series.images[i].scored.score)
    return [series.images[i] for i in sorted(order[:_LISTED])]


def _observer(detector: Scorer) -> ObserverContext:
    model = model_hash(detector)
    return ObserverContext(
        observer_type=codes.DEVICE,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", "", model),
            name=f"scrd {__version__}, model {model[:16]}",
            manufacturer_name=MAKER,
            model_name=f"{MAKER} {__version__}",
            serial_number=model[:16],
        ),
    )


def _texts(study: StudyResult, silence: str | None) -> ContainerContentItem:
    container = ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    items = [TextContentItem(codes.INTENDED_USE, codes.INTENDED_USE_TEXT, _CONTAINS)]
    if silence:
        items.append(TextContentItem(codes.COMMENT, f"Warning: {_ascii(silence)}", _CONTAINS))
    for result in study.series:
        name = result.series.instance_uid
        items += [
            TextContentItem(codes.COMMENT, f"Series {name}: {_ascii(text)}", _CONTAINS)
            for text in _comments(result)
        ]
    container.ContentSequence = ContentSequence(items)
    return container


def _comments(result: SeriesResult) -> Iterator[str]:
    total, scored = len(result.images), len(result.scored)
    yield f"{scored} of {total} images scored"
    yield from result.series.problems
    doubts = Counter(text for image in result.scored for text in image.doubts)
    failures = Counter(x.reason for x in result.images if isinstance(x, ImageError))
    for text, count in doubts.items():
        yield f"{count} images in doubt: {text}"
    for text, count in failures.items():
        yield f"{count} images without a score: {text}"


def _ascii(text: str) -> str:
    """The text in what every character set of DICOM can write."""
    return text.encode("ascii", "replace").decode()
