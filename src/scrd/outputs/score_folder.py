"""The folder that `scrd score` leaves."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scrd.data.series import Listing
from scrd.data.source import Series, Source
from scrd.dicom.uids import tag
from scrd.errors import ConfigError, ImageError
from scrd.outputs.covariates import covariate_table
from scrd.outputs.index import NAME as INDEX
from scrd.outputs.index import Index
from scrd.outputs.lost import Lost
from scrd.outputs.names import output_names
from scrd.outputs.pictures import (
    Outputs,
    even_volume,
    picture_paths,
    write_pictures,
    write_volume_map,
)
from scrd.outputs.result_folder import ResultFolder
from scrd.outputs.tables import Table
from scrd.scoring.scorer import Scored, Scorer
from scrd.scoring.verdicts import Verdict, collect

Result = Scored | ImageError
MODEL = "model"
"""In place of a path, where a warning concerns the model and so every result."""

# bytes set aside for a row beside its path, and at most for a table that may stay empty
_ROW, _ROOM = 96, 1 << 20


@dataclass(frozen=True)
class Summary:
    """What came of it.

    Attributes:
        images: images that were to be scored.
        flagged: images flagged.
        studies: studies with at least one scored image.
        flagged_studies: studies flagged.
        doubted: images scored in spite of doubts, and series with problems.
        failures: images that could not be scored.
        objects: DICOM files written.
        unwritten: what could not be drawn, made or written, and why, a sentence each.
        disk_error: the first refusal of the place itself, such as a full disk.
        verdicts: one a study, None where no image of it could be scored.
    """

    images: int
    flagged: int
    studies: int
    flagged_studies: int
    doubted: int
    failures: tuple[ImageError, ...]
    objects: tuple[Path, ...]
    unwritten: tuple[str, ...]
    disk_error: OSError | None = None
    verdicts: tuple[Verdict | None, ...] = ()


def score_all(
    detector: Scorer,
    listing: Listing,
    folder: Path,
    outputs: Outputs,
    *,
    batch_size: int = 16,
    any_kind: bool = False,
    progress: bool = False,
    processes: int = 0,
    results: Iterable[Result] | None = None,
    also: Callable[[Scored], None] | None = None,
) -> Summary:
    """Score a listing and write everything about it.

    ``scores.csv`` has a row an image; ``series.csv`` and ``studies.csv`` a row for each of these,
    where there are DICOM or NIfTI images; ``covariates.csv`` says of each scored image where it
    comes from, see :mod:`scrd.outputs.covariates`; ``errors.csv`` says which images could not be
    scored, ``warnings.csv`` which are doubtful, both only where there are such. A model that can
    flag nothing has a row in ``warnings.csv`` too; where no normals calibrated it the cells of
    p-value and flag are empty. Rows are written as results come, and maps held for one study at a
    time. ``index.html`` shows all of it, see :mod:`scrd.outputs.index`.

    Args:
        detector: trained; saved, where DICOM objects are to be written.
        listing: what to score.
        folder: where to write.
        outputs: what to write beside the tables.
        batch_size: images a batch.
        any_kind: see :meth:`scrd.scoring.scorer.Scorer.score`.
        progress: show a progress bar on standard error.
        processes: that read files, see :meth:`scrd.scoring.scorer.Scorer.score`.
        results: one for each source, in order, from elsewhere: there they were scored, and what
            :func:`write_pictures` writes was written.
        also: is told of every scored image.

    Raises:
        ConfigError: DICOM objects of images that are not DICOM, or of a model without a
            calibration, which they would have to state.
        PlaceError: the folder holds results that no list names, see
            :mod:`scrd.outputs.result_folder`.
        OSError: the tables cannot be written. What is written beside them never stops them.
    """
    if outputs.kinds:
        detector.calibration.require("no DICOM object can be written")
        for source in listing.sources:
            if source.series is None or source.series.format != "DICOM":
                raise ConfigError(f"{source.path}: not DICOM: no DICOM object can refer to it")
    run = ResultFolder(folder)
    run.start()
    index = Index(folder)
    drawn = results is not None
    if results is None:
        results = detector.score(
            listing.sources,
            batch_size=batch_size,
            progress=progress,
            any_kind=any_kind,
            maps=outputs.overlays or outputs.raw_maps or bool(outputs.kinds),
            processes=processes,
        )
    names: Iterable[Path | None] = itertools.repeat(None, len(listing.sources))
    if outputs.overlays or outputs.raw_maps:
        names = output_names(listing.sources)
    volumes: dict[Series, Path] = {}
    flagged = doubted = flagged_studies = 0
    failures: list[ImageError] = []
    objects: list[Path] = []
    lost = Lost()
    verdicts: list[Verdict | None] = []

    columns = ("images", "score", "p_value", "flag", "how")
    room = sum(len(os.fsencode(str(source))) + _ROW for source in listing.sources)
    some = min(room, _ROOM)
    with (
        _score_tables(folder / "scores.csv", room) as add,
        covariate_table(folder, detector.fingerprint, 2 * room) as add_covariates,
        Table(folder / "series.csv", ("study", "series", *columns), room=some) as series,
        Table(folder / "studies.csv", ("study", *columns), room=some) as studies,
        Table(folder / "warnings.csv", ("path", "reason"), room=some) as warnings,
    ):
        if detector.calibration.silence:
            warnings.add(MODEL, detector.calibration.silence)

        def recorded() -> Iterator[tuple[Source, Result]]:
            nonlocal flagged, doubted
            for source, name, result in zip(listing.sources, names, results, strict=True):
                add(str(source), result)
                overlay = None
                if isinstance(result, Scored):
                    add_covariates(source, result)
                    if also is not None:
                        also(result)
                    flagged += bool(result.flag)
                    doubted += bool(result.doubts)
                    for doubt in result.doubts:
                        warnings.add(str(source), doubt)
                    if name is not None and not lost.full:
                        try:
                            for path in picture_paths(result, folder, name, outputs):
                                run.claim(path)
                                overlay = path if path.suffix == ".jpg" else overlay
                            if not drawn:
                                write_pictures(detector, result, folder, name, outputs)
                        except Exception as e:  # one picture never costs the others
                            lost.add(f"heat map or map of {source}", e)
                else:
                    failures.append(result)
                index.add_image(source, result, overlay)
                volume = even_volume(source.series)
                if name is not None and volume is not None:
                    volumes[volume] = name.parent
                yield source, result

        for study in collect(recorded(), detector.calibration):
            verdicts.append(study.verdict)
            index.add_study(study)
            flagged_studies += study.verdict is not None and bool(study.verdict.flag)
            studies.add(study.uid, *_cells(study.verdict))
            for one in study.series:
                series.add(study.uid, one.series.uid, *_cells(one.verdict))
                doubted += bool(one.series.problems)
                for problem in one.series.problems:
                    warnings.add(one.series.uid, problem)
                name = volumes.pop(one.series, None)
                if outputs.raw_maps and name is not None and one.verdict is not None:
                    try:
                        path = run.claim(folder / "maps" / f"{name}.nii.gz")
                        write_volume_map(detector, one, path)
                    except Exception as e:
                        lost.add(f"map of the volume {name}", e)
            if outputs.kinds and study.verdict is not None:
                from scrd.dicom.write import Unwritten, Written, write_objects

                here = folder / "dicom" / tag(study.uid)
                try:
                    made = write_objects(here, study, detector, outputs.kinds)
                except OSError as e:
                    lost.add(f"DICOM objects of the study {tag(study.uid)}", e)
                    made = []
                for path in sorted(here.glob("*.dcm")):
                    run.claim(path)
                objects += [o.path for o in made if isinstance(o, Written)]
                lost.reasons += [str(o) for o in made if isinstance(o, Unwritten)]
        for failure in listing.failures:
            add(str(failure.path), failure)
            index.add_failure(failure)
            failures.append(failure)
        for copy in listing.copies:
            warnings.add(str(copy.path), copy.reason)

    try:
        index.write(detector)
    except Exception as e:  # the tables are what counts
        lost.add(INDEX, e)
    return Summary(
        images=len(listing.sources) + len(listing.failures),
        flagged=flagged,
        studies=studies.count,
        flagged_studies=flagged_studies,
        doubted=doubted,
        failures=tuple(failures),
        objects=tuple(objects),
        unwritten=tuple(lost.told()),
        disk_error=lost.disk_error,
        verdicts=tuple(verdicts),
    )


def _cells(verdict: Verdict | None) -> tuple[object, ...]:
    if verdict is None:
        return (0, "", "", "", "")
    return (verdict.images, verdict.score, *_decided(verdict), verdict.how)


def _decided(one: Scored | Verdict) -> tuple[object, object]:
    """Cells of p-value and flag; empty where no normals calibrated the model."""
    if one.p_value is None:
        return "", ""
    return one.p_value, int(bool(one.flag))


def write_scores(
    path: Path, names: Iterable[str], results: Iterable[Result], silence: str | None = None
) -> None:
    """Write ``scores.csv`` with columns path, score, p_value, flag, one row an image.

    An image that could not be read keeps its row, with empty cells; ``errors.csv`` beside it
    says why, ``warnings.csv`` which are doubtful, and they are there only if there is such an
    image. Results are taken one at a time and
    let go, map and all, so that a stream of any length can be written.

    Args:
        path: of ``scores.csv``.
        names: of the images.
        results: of the images.
        silence: why the model can flag nothing, see
            :attr:`scrd.scoring.calibration.Calibration.silence`.
    """
    with (
        _score_tables(path) as add,
        Table(path.with_name("warnings.csv"), ("path", "reason")) as warnings,
    ):
        if silence:
            warnings.add(MODEL, silence)
        for name, result in zip(names, results, strict=True):
            add(name, result)
            for doubt in result.doubts if isinstance(result, Scored) else ():
                warnings.add(name, doubt)


@contextmanager
def _score_tables(path: Path, room: int = 0) -> Iterator[Callable[[str, Result], None]]:
    """``scores.csv`` and ``errors.csv`` beside it; yields what appends an image."""

    def add(name: str, result: Result) -> None:
        if isinstance(result, Scored):
            scores.add(name, result.score, *_decided(result))
        else:
            scores.add(name, "", "", "")
            errors.add(name, result.reason)

    columns = ("path", "score", "p_value", "flag")
    with (
        Table(path, columns, keep_empty=True, room=room) as scores,
        Table(path.with_name("errors.csv"), ("path", "reason"), room=min(room, _ROOM)) as errors,
    ):
        yield add
