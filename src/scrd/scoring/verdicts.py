"""From images to series to studies: one verdict each, calibrated on normals pooled alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from scrd.data.source import Series, Source
from scrd.errors import ImageError
from scrd.scoring.calibration import Calibration, Level, pool
from scrd.scoring.scorer import Scored


@dataclass(frozen=True)
class Verdict:
    """The answer for a series or study.

    Attributes:
        score: mean of the highest tenth of its images' scores, see
            :func:`scrd.scoring.calibration.pool`.
        p_value: in (0, 1]: a normal one has a value this small or smaller with at most this
            probability. None where no normals calibrated the detector.
        flag: the p-value is at most the chosen false-alarm rate; None where there is no p-value.
        images: how many images it stands on.
        how: ``calibrated``, a conformal p-value among normals that were pooled alike; or, where
            the model knows no series or studies of that size, ``bonferroni``, the smallest
            p-value of the images times their number: valid, but blunt; ``uncalibrated``, a score
            alone.
    """

    score: float
    p_value: float | None
    flag: bool | None
    images: int
    how: str


@dataclass(frozen=True)
class SeriesResult:
    """A scored series.

    Attributes:
        series: what was scored.
        images: a result a place of the series, in the same order.
        verdict: None where no image could be scored.
    """

    series: Series
    images: tuple[Scored | ImageError, ...]
    verdict: Verdict | None

    @property
    def scored(self) -> tuple[Scored, ...]:
        """The images that could be scored, in geometric order."""
        return tuple(image for image in self.images if isinstance(image, Scored))


@dataclass(frozen=True)
class StudyResult:
    """A scored study.

    Attributes:
        uid: Study Instance UID; for NIfTI the path.
        series: its series, in the order of their listing.
        verdict: None where no image could be scored.
    """

    uid: str
    series: tuple[SeriesResult, ...]
    verdict: Verdict | None


def judge(scored: Sequence[Scored], level: Level, calibration: Calibration) -> Verdict:
    """The verdict over the images of one series or study.

    Args:
        scored: its images, at least one.
        level: normal series or studies, of the same calibration.
        calibration: of the detector that scored them.
    """
    score = pool([image.score for image in scored], calibration.pooled_share)
    known = [image.p_value for image in scored if image.p_value is not None]
    if not known:
        return Verdict(score, None, None, len(scored), "uncalibrated")
    if level.speaks_for(len(scored), calibration.many):
        how, p = "calibrated", float(calibration.p_values(score, level)[0])
    else:
        how, p = "bonferroni", min(1.0, len(scored) * min(known))
    return Verdict(score, p, p <= calibration.false_alarm_rate, len(scored), how)


def collect(
    results: Iterable[tuple[Source, Scored | ImageError]], calibration: Calibration
) -> Iterator[StudyResult]:
    """Put the results of images together, study by study.

    Args:
        results: sources and their results, as :func:`scrd.data.series.list_sources` orders them;
            taken one at a time, and let go with their study. Images of no series are passed over.
        calibration: of the detector that scored them.
    """
    in_series = ((s, r) for s, r in results if s.series is not None)
    for study, members in groupby(in_series, key=lambda pair: _series(pair[0]).study):
        series = []
        for one, images in groupby(members, key=lambda pair: _series(pair[0])):
            found = tuple(result for _, result in images)
            usable = [result for result in found if isinstance(result, Scored)]
            verdict = judge(usable, calibration.series, calibration) if usable else None
            series.append(SeriesResult(one, found, verdict))
        scored = [image for one in series for image in one.scored]
        verdict = judge(scored, calibration.study, calibration) if scored else None
        yield StudyResult(study, tuple(series), verdict)


def _series(source: Source) -> Series:
    assert source.series is not None
    return source.series
