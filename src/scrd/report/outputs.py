"""The folder that `scrd score` leaves."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from scrd.data.cache import measure_window
from scrd.data.reading import read_image
from scrd.data.series import Listing
from scrd.data.source import Series, Source
from scrd.dicom.uids import tag
from scrd.errors import ConfigError, ImageError
from scrd.report.overlay import heat_overlay
from scrd.report.tables import Table
from scrd.scoring.scorer import Scored, Scorer
from scrd.scoring.verdicts import SeriesResult, Verdict, collect

Result = Scored | ImageError
MODEL = "model"
"""In place of a path, where a warning concerns the model and so every result."""


@dataclass(frozen=True)
class Outputs:
    """What to write beside the tables.

    Attributes:
        overlays: a heat map over each image.
        raw_maps: the maps themselves.
        kinds: DICOM objects, see :func:`scrd.dicom.write.write_objects`.
    """

    overlays: bool = True
    raw_maps: bool = False
    kinds: tuple[str, ...] = ()


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
        unwritten: why a DICOM object could not be made, a sentence each.
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
    results: Iterable[Result] | None = None,
) -> Summary:
    """Score a listing and write everything about it.

    ``scores.csv`` has a row an image; ``series.csv`` and ``studies.csv`` a row for each of these,
    where there are DICOM or NIfTI images; ``errors.csv`` says which images could not be scored,
    ``warnings.csv`` which are doubtful, both only where there are such. A model that can flag
    nothing has a row in ``warnings.csv`` too. Rows are written as
    results come, and maps held for one study at a time.

    Args:
        detector: trained; saved, where DICOM objects are to be written.
        listing: what to score.
        folder: where to write.
        outputs: what to write beside the tables.
        batch_size: images a batch.
        any_kind: see :meth:`scrd.scoring.scorer.Scorer.score`.
        progress: show a progress bar on standard error.
        results: one for each source, in order, from elsewhere: there they were scored, and what
            :func:`write_pictures` writes was written.

    Raises:
        ConfigError: DICOM objects of images that are not DICOM.
    """
    if outputs.kinds:
        for source in listing.sources:
            if source.series is None or source.series.format != "DICOM":
                raise ConfigError(f"{source.path}: not DICOM: no DICOM object can refer to it")
    drawn = results is not None
    if results is None:
        results = detector.score(
            listing.sources, batch_size=batch_size, progress=progress, any_kind=any_kind
        )
    names: Iterable[Path | None] = itertools.repeat(None, len(listing.sources))
    if outputs.overlays or outputs.raw_maps:
        names = output_names(listing.sources)
    volumes: dict[Series, Path] = {}
    flagged = doubted = flagged_studies = 0
    failures: list[ImageError] = []
    objects: list[Path] = []
    unwritten: list[str] = []
    verdicts: list[Verdict | None] = []

    columns = ("images", "score", "p_value", "flag", "how")
    with (
        _score_tables(folder / "scores.csv") as add,
        Table(folder / "series.csv", ("study", "series", *columns)) as series,
        Table(folder / "studies.csv", ("study", *columns)) as studies,
        Table(folder / "warnings.csv", ("path", "reason")) as warnings,
    ):
        if detector.calibration.silence:
            warnings.add(MODEL, detector.calibration.silence)

        def recorded() -> Iterator[tuple[Source, Result]]:
            nonlocal flagged, doubted
            for source, name, result in zip(listing.sources, names, results, strict=True):
                add(str(source), result)
                if isinstance(result, Scored):
                    flagged += result.flag
                    doubted += bool(result.doubts)
                    for doubt in result.doubts:
                        warnings.add(str(source), doubt)
                    if name is not None and not drawn:
                        write_pictures(detector, result, folder, name, outputs)
                else:
                    failures.append(result)
                volume = _volume(source.series)
                if name is not None and volume is not None:
                    volumes[volume] = name.parent
                yield source, result

        for study in collect(recorded(), detector.calibration):
            verdicts.append(study.verdict)
            flagged_studies += study.verdict is not None and study.verdict.flag
            studies.add(study.uid, *_cells(study.verdict))
            for one in study.series:
                series.add(study.uid, one.series.uid, *_cells(one.verdict))
                doubted += bool(one.series.problems)
                for problem in one.series.problems:
                    warnings.add(one.series.uid, problem)
                name = volumes.pop(one.series, None)
                if outputs.raw_maps and name is not None and one.verdict is not None:
                    write_volume_map(detector, one, folder / "maps" / f"{name}.nii.gz")
            if outputs.kinds and study.verdict is not None:
                from scrd.dicom.write import Unwritten, Written, write_objects

                here = folder / "dicom" / tag(study.uid)
                made = write_objects(here, study, detector, outputs.kinds)
                objects += [o.path for o in made if isinstance(o, Written)]
                unwritten += [str(o) for o in made if isinstance(o, Unwritten)]
        for failure in listing.failures:
            add(str(failure.path), failure)
            failures.append(failure)
        for copy in listing.copies:
            warnings.add(str(copy.path), copy.reason)

    return Summary(
        images=len(listing.sources) + len(listing.failures),
        flagged=flagged,
        studies=studies.count,
        flagged_studies=flagged_studies,
        doubted=doubted,
        failures=tuple(failures),
        objects=tuple(objects),
        unwritten=tuple(unwritten),
        verdicts=tuple(verdicts),
    )


def _cells(verdict: Verdict | None) -> tuple[object, ...]:
    if verdict is None:
        return (0, "", "", "", "")
    return (verdict.images, verdict.score, verdict.p_value, int(verdict.flag), verdict.how)


def _volume(series: Series | None) -> Series | None:
    """The series, where its images make up an even volume."""
    return series if series is not None and series.affine is not None else None


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
def _score_tables(path: Path) -> Iterator[Callable[[str, Result], None]]:
    """``scores.csv`` and ``errors.csv`` beside it; yields what appends an image."""

    def add(name: str, result: Result) -> None:
        if isinstance(result, Scored):
            scores.add(name, result.score, result.p_value, int(result.flag))
        else:
            scores.add(name, "", "", "")
            errors.add(name, result.reason)

    columns = ("path", "score", "p_value", "flag")
    with (
        Table(path, columns, keep_empty=True) as scores,
        Table(path.with_name("errors.csv"), ("path", "reason")) as errors,
    ):
        yield add


def output_names(sources: Sequence[Source]) -> list[Path]:
    """Relative names for what is written about each image.

    A picture is called by its path below the common folder, without the suffix unless two files
    differ in nothing else; a slice of a NIfTI volume by the volume's path and its number. DICOM
    files are often called by what is nobody's business: their names are made of the tags of study
    and series, see :func:`scrd.dicom.uids.tag`, and the image's number in the series.
    """
    named = [s for s in sources if s.series is None or s.series.format != "DICOM"]
    paths = {s.path: Path(os.path.abspath(s.path)) for s in named}  # a link keeps its own name
    root = Path(os.path.commonpath([p.parent for p in paths.values()])) if paths else Path()
    relative = {path: absolute.relative_to(root) for path, absolute in paths.items()}
    bare = {path: _without_suffix(name) for path, name in relative.items()}
    taken = Counter([*relative.values(), *bare.values()])
    counts: Counter[int] = Counter()
    names = []
    for source in sources:
        if source.path in relative:
            name = relative[source.path] if taken[bare[source.path]] > 1 else bare[source.path]
            names.append(name if source.frame is None else name / f"{source.frame:04d}")
        else:
            series = source.series
            assert series is not None
            number = counts[id(series)]
            counts[id(series)] += 1
            names.append(Path(tag(series.study), tag(series.uid), f"{number:04d}"))
    return names


def _without_suffix(path: Path) -> Path:
    return (
        path.with_suffix("").with_suffix("")
        if path.name.lower().endswith(".nii.gz")
        else (path.with_suffix(""))
    )


def draw(detector: Scorer, scored: Scored, title: str) -> Image.Image:
    """The overlay of a scored image, on the colour scale of the detector."""
    calibration = detector.calibration
    verdict = "flagged" if scored.flag else "not flagged"
    intensity, series = detector.preprocessing.intensity, scored.source.series
    window = (intensity.low, intensity.high)
    if intensity.scope == "series" and series is not None:
        window = series.window(partial(measure_window, intensity=intensity))
    return heat_overlay(
        read_image(scored.source),
        detector.source_map(scored),
        scale=calibration.map_scale,
        threshold=calibration.map_threshold,
        title=title,
        caption=f"score {scored.score:.3g}, p {scored.p_value:.2g}, {verdict}",
        window=window,
    )


def write_pictures(
    detector: Scorer, scored: Scored, folder: Path, name: Path, outputs: Outputs
) -> None:
    """Write what is wanted about one image alone: its overlay, and its map if of no volume."""
    if outputs.overlays:
        picture = folder / "overlays" / name.with_name(f"{name.name}.jpg")
        write_overlay(detector, scored, picture, name.name)
    if outputs.raw_maps and _volume(scored.source.series) is None:
        write_raw_map(detector, scored, folder / "maps" / name.with_name(f"{name.name}.npy"))


def write_overlay(detector: Scorer, scored: Scored, path: Path, title: str) -> None:
    """Write the overlay as JPEG, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    draw(detector, scored, title).save(temporary, "JPEG", quality=90)
    os.replace(temporary, path)


def write_raw_map(detector: Scorer, scored: Scored, path: Path) -> None:
    """Write the map in source geometry, (H, W) float32 in [0, 2], as ``.npy``, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as f:
        np.save(f, detector.source_map(scored))
    os.replace(temporary, path)


def write_volume_map(detector: Scorer, result: SeriesResult, path: Path) -> None:
    """Write the maps of a volume as one NIfTI, float32 in [0, 2], in the source's geometry.

    Slices without a score are NaN.
    """
    from scrd.data.formats.nifti import write_like, write_volume

    size = result.scored[0].source_size
    maps = np.full((len(result.images), *size), np.nan, np.float32)
    for i, image in enumerate(result.images):
        if isinstance(image, Scored):
            maps[i] = detector.source_map(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    series = result.series
    if series.format == "NIfTI":
        write_like(path, series.places[0][0], maps)
    else:
        assert series.affine is not None
        write_volume(path, maps, series.affine)
