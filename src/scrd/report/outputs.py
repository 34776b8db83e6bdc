"""The folder that `scrd score` leaves."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from scrd.data.cache import measure_window
from scrd.data.reading import ImageError, read_image
from scrd.data.series import Listing
from scrd.data.source import Series, Source
from scrd.detector import Detector, Scored
from scrd.dicom.uids import tag
from scrd.errors import ConfigError
from scrd.report.overlay import heat_overlay
from scrd.storage import write_atomically
from scrd.study import SeriesResult, Verdict, collect

Result = Scored | ImageError

_NO_MAP = np.zeros((0, 0), np.float32)


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
    """

    images: int
    flagged: int
    studies: int
    flagged_studies: int
    doubted: int
    failures: tuple[ImageError, ...]
    objects: tuple[Path, ...]
    unwritten: tuple[str, ...]


def score_all(
    detector: Detector,
    listing: Listing,
    folder: Path,
    outputs: Outputs,
    *,
    batch_size: int = 16,
    any_kind: bool = False,
    progress: bool = False,
) -> Summary:
    """Score a listing and write everything about it.

    ``scores.csv`` has a row an image; ``series.csv`` and ``studies.csv`` a row for each of these,
    where there are DICOM or NIfTI images; ``errors.csv`` says which images could not be scored,
    ``warnings.csv`` which are doubtful, both only where there are such. Maps are held for one
    study at a time.

    Args:
        detector: trained; saved, where DICOM objects are to be written.
        listing: what to score.
        folder: where to write.
        outputs: what to write beside the tables.
        batch_size: images a batch.
        any_kind: see :meth:`scrd.detector.Detector.score`.
        progress: show a progress bar on standard error.

    Raises:
        ConfigError: DICOM objects of images that are not DICOM.
    """
    if outputs.kinds:
        for source in listing.sources:
            if source.series is None or source.series.format != "DICOM":
                raise ConfigError(f"{source.path}: not DICOM: no DICOM object can refer to it")
    names = dict(zip(listing.sources, output_names(listing.sources), strict=True))
    rows: list[tuple[str, Result]] = []
    warnings: list[tuple[str, str]] = []

    def recorded() -> Iterator[tuple[Source, Result]]:
        results = detector.score(
            listing.sources, batch_size=batch_size, progress=progress, any_kind=any_kind
        )
        for source, result in zip(listing.sources, results, strict=True):
            name = names[source]
            if isinstance(result, Scored):
                warnings.extend((str(source), doubt) for doubt in result.doubts)
                if outputs.overlays:
                    picture = folder / "overlays" / name.with_name(f"{name.name}.jpg")
                    write_overlay(detector, result, picture, name.name)
                if outputs.raw_maps and _volume(source.series) is None:
                    raw = folder / "maps" / name.with_name(f"{name.name}.npy")
                    write_raw_map(detector, result, raw)
                rows.append((str(source), replace(result, input_map=_NO_MAP)))
            else:
                rows.append((str(source), result))
            yield source, result

    verdicts: dict[str, list[tuple[object, ...]]] = {"series": [], "studies": []}
    flagged_studies = 0
    objects: list[Path] = []
    unwritten: list[str] = []
    for study in collect(recorded(), detector.calibration):
        flagged_studies += study.verdict is not None and study.verdict.flag
        verdicts["studies"].append((study.uid, *_cells(study.verdict)))
        for one in study.series:
            verdicts["series"].append((study.uid, one.series.uid, *_cells(one.verdict)))
            warnings += [(one.series.uid, problem) for problem in one.series.problems]
            if outputs.raw_maps and one.verdict is not None and _volume(one.series) is not None:
                name = names[one.series.sources[0]].parent
                write_volume_map(detector, one, folder / "maps" / f"{name}.nii.gz")
        if outputs.kinds and study.verdict is not None:
            from scrd.dicom.write import Unwritten, Written, write_objects

            made = write_objects(folder / "dicom" / tag(study.uid), study, detector, outputs.kinds)
            objects += [o.path for o in made if isinstance(o, Written)]
            unwritten += [str(o) for o in made if isinstance(o, Unwritten)]

    rows += [(str(f.path), f) for f in listing.failures]
    write_scores(folder / "scores.csv", [name for name, _ in rows], [r for _, r in rows])
    columns = ("images", "score", "p_value", "flag", "how")
    _write_or_remove(folder / "series.csv", ("study", "series", *columns), verdicts["series"])
    _write_or_remove(folder / "studies.csv", ("study", *columns), verdicts["studies"])
    _write_or_remove(folder / "warnings.csv", ("path", "reason"), warnings)
    results = [result for _, result in rows]
    return Summary(
        images=len(results),
        flagged=sum(result.flag for result in results if isinstance(result, Scored)),
        studies=len(verdicts["studies"]),
        flagged_studies=flagged_studies,
        doubted=len({name for name, _ in warnings}),
        failures=tuple(r for r in results if isinstance(r, ImageError)),
        objects=tuple(objects),
        unwritten=tuple(unwritten),
    )


def _cells(verdict: Verdict | None) -> tuple[object, ...]:
    if verdict is None:
        return (0, "", "", "", "")
    return (verdict.images, verdict.score, verdict.p_value, int(verdict.flag), verdict.how)


def _volume(series: Series | None) -> Series | None:
    """The series, where its images make up an even volume."""
    return series if series is not None and series.affine is not None else None


def write_scores(path: Path, names: Sequence[str], results: Iterable[Result]) -> None:
    """Write ``scores.csv`` with columns path, score, p_value, flag, one row an image.

    An image that could not be read keeps its row, with empty cells; ``errors.csv`` beside it
    says why, and is there only if there is such an image. Results are taken one at a time and
    let go, map and all, so that a stream of any length can be written.
    """
    rows: list[tuple[object, ...]] = []
    failed = []
    for name, result in zip(names, results, strict=True):
        if isinstance(result, Scored):
            rows.append((name, result.score, result.p_value, int(result.flag)))
        else:
            rows.append((name, "", "", ""))
            failed.append((name, result.reason))
    write_atomically(path, _csv(("path", "score", "p_value", "flag"), rows))
    _write_or_remove(path.with_name("errors.csv"), ("path", "reason"), failed)


def _write_or_remove(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table; without rows, leave none of an earlier run."""
    if rows:
        write_atomically(path, _csv(header, rows))
    else:
        path.unlink(missing_ok=True)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


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


def draw(detector: Detector, scored: Scored, title: str) -> Image.Image:
    """The overlay of a scored image, on the colour scale of the detector."""
    calibration = detector.calibration
    verdict = "flagged" if scored.flag else "not flagged"
    intensity, series = detector.preprocessing.intensity, scored.source.series
    window = (intensity.low, intensity.high)
    if intensity.scope == "series" and series is not None:
        window = series.window(measure_window)
    return heat_overlay(
        read_image(scored.source),
        detector.source_map(scored),
        scale=calibration.map_scale,
        threshold=calibration.map_threshold,
        title=title,
        caption=f"score {scored.score:.3g}, p {scored.p_value:.2g}, {verdict}",
        window=window,
    )


def write_overlay(detector: Detector, scored: Scored, path: Path, title: str) -> None:
    """Write the overlay as JPEG, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    draw(detector, scored, title).save(temporary, "JPEG", quality=90)
    os.replace(temporary, path)


def write_raw_map(detector: Detector, scored: Scored, path: Path) -> None:
    """Write the map in source geometry, (H, W) float32 in [0, 2], as ``.npy``, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as f:
        np.save(f, detector.source_map(scored))
    os.replace(temporary, path)


def write_volume_map(detector: Detector, result: SeriesResult, path: Path) -> None:
    """Write the maps of a volume as one NIfTI, float32 in [0, 2], in the source's geometry.

    Slices without a score are NaN.
    """
    from scrd.data.nifti import write_like, write_volume

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
