"""The page of a run: its rows as they come, and ``index.html`` at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from scrd.data.source import Source
from scrd.errors import ImageError
from scrd.report.cases import Cases, Row
from scrd.report.index_page import Model, write_index
from scrd.scoring.scorer import Scored, Scorer
from scrd.scoring.verdicts import SeriesResult, StudyResult, Verdict

NAME = "index.html"
_TABLES = ("scores.csv", "series.csv", "studies.csv", "errors.csv", "warnings.csv")
_MANY = 12
_BLUNT = "the model knows no {} of this size, which makes the p-value blunt"


class Index:
    """What a run has to show; holds no more rows than a page does.

    Attributes:
        folder: where the run writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images, self._series = Cases("image"), Cases("series")
        self._studies = Cases("study")
        self._alone = 0
        self._pictures: dict[Source, str] = {}

    def add_image(self, source: Source, result: Scored | ImageError, overlay: Path | None) -> None:
        """Take one image.

        Args:
            source: the image.
            result: what came of it.
            overlay: where its heat map is, if one was written.
        """
        series = source.series
        picture = None
        if overlay is not None and overlay.is_file():
            picture = overlay.relative_to(self.folder).as_posix()
        if series is None:
            self._alone += 1
        elif picture is not None:
            self._pictures[source] = picture
        within = () if series is None else (series.uid, series.study)
        self._images.add(image_row(str(source), result, picture=picture, within=within))

    def add_failure(self, failure: ImageError) -> None:
        """Take a file of which nobody knows what it holds."""
        self._images.add(image_row(str(failure.path), failure))

    def add_study(self, study: StudyResult) -> None:
        """Take a study, whose images were all taken before."""
        for one in study.series:
            self._series.add(self._part(one.series.uid, one.verdict, (one,), (study.uid,)))
        self._studies.add(self._part(study.uid, study.verdict, study.series))
        self._pictures.clear()

    def _part(
        self,
        name: str,
        verdict: Verdict | None,
        parts: Sequence[SeriesResult],
        within: tuple[str, ...] = (),
    ) -> Row:
        scored = sorted((s for one in parts for s in one.scored), key=lambda s: -s.score)
        pictures = (self._pictures.get(s.source) for s in scored)
        refused = [i for one in parts for i in one.images if isinstance(i, ImageError)]
        count = sum(len(one.images) for one in parts)
        notes = [f"{count} image{'s' * (count != 1)}"]
        if refused and scored:
            notes.append(f"{len(refused)} of them without a score: {refused[0].reason}")
        if verdict is not None and verdict.how == "bonferroni":
            notes.append(_BLUNT.format("series" if within else "studies"))
        problems = (problem for one in parts for problem in one.series.problems)
        doubts = _few([*problems, *(doubt for s in scored for doubt in s.doubts)])
        if verdict is None:
            reason = f"none of its images has a score: {refused[0].reason}" if refused else "empty"
            return Row(
                name, None, doubts=doubts, refusal=reason, note="; ".join(notes), within=within
            )
        return Row(
            name,
            verdict.score,
            verdict.p_value,
            verdict.flag,
            doubts,
            picture=next(filter(None, pictures), None),
            note="; ".join(notes),
            within=within,
        )

    def write(self, detector: Scorer) -> None:
        """Write the page.

        Args:
            detector: what scored the images.

        Raises:
            OSError: the place takes no more.
        """
        lists = [self._studies, self._series, self._images]
        if self._alone:  # then nothing but the images is complete
            lists = lists[::-1]
        model = Model(detector.fingerprint, detector.calibration)
        tables = [name for name in _TABLES if (self.folder / name).is_file()]
        write_index(self.folder / NAME, lists, model, tables)


def image_row(
    name: str,
    result: Scored | ImageError,
    *,
    picture: str | None = None,
    within: tuple[str, ...] = (),
    abnormal: bool | None = None,
    kind: str = "",
) -> Row:
    """The row of one image; see :class:`scrd.report.cases.Row`."""
    if isinstance(result, ImageError):
        return Row(name, None, refusal=result.reason, within=within, abnormal=abnormal, kind=kind)
    return Row(
        name,
        result.score,
        result.p_value,
        result.flag,
        result.doubts,
        picture=picture,
        within=within,
        abnormal=abnormal,
        kind=kind,
    )


def _few(texts: Iterable[str]) -> tuple[str, ...]:
    """Each once, and of very many the first."""
    distinct = list(dict.fromkeys(texts))
    if len(distinct) <= _MANY:
        return tuple(distinct)
    return (*distinct[:_MANY], f"and {len(distinct) - _MANY} more: see warnings.csv")
