"""Heat maps and maps of scored images as files."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scrd.data.source import Series
from scrd.errors import ScrdError
from scrd.report.overlay import draw
from scrd.scoring.scorer import Scored, Scorer
from scrd.scoring.verdicts import SeriesResult
from scrd.system.files import atomic, cause


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


def write_pictures(
    detector: Scorer, scored: Scored, folder: Path, name: Path, outputs: Outputs
) -> None:
    """Write what is wanted about one image alone: its overlay, and its map if of no volume.

    Raises:
        OSError: one of them cannot be written; the other is, all the same.
    """
    failure: Exception | None = None
    for path in picture_paths(scored, folder, name, outputs):
        try:
            if path.suffix == ".npy":
                write_raw_map(detector, scored, path)
            else:
                write_overlay(detector, scored, path, name.name)
        except Exception as e:
            failure = failure or e
    if failure is not None:
        raise failure


def picture_paths(scored: Scored, folder: Path, name: Path, outputs: Outputs) -> Iterator[Path]:
    """What `write_pictures` writes."""
    if outputs.overlays:
        yield folder / "overlays" / name.with_name(f"{name.name}.jpg")
    if outputs.raw_maps and even_volume(scored.source.series) is None:
        yield folder / "maps" / name.with_name(f"{name.name}.npy")


def even_volume(series: Series | None) -> Series | None:
    """The series, where its images make up an even volume."""
    return series if series is not None and series.affine is not None else None


def why(error: Exception) -> str:
    """Why something could not be made, in words of ours: other messages may quote a header."""
    if isinstance(error, OSError):
        return cause(error)
    if isinstance(error, ScrdError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"


def write_overlay(detector: Scorer, scored: Scored, path: Path, title: str) -> None:
    """Write the overlay as JPEG, atomically."""
    picture = draw(detector, scored, title)
    with atomic(path) as temporary:
        picture.save(temporary, "JPEG", quality=90)


def write_raw_map(detector: Scorer, scored: Scored, path: Path) -> None:
    """Write the map in source geometry, (H, W) float32, as ``.npy``, atomically."""
    values = detector.source_map(scored)
    with atomic(path) as temporary, open(temporary, "wb") as f:
        np.save(f, values)


def write_volume_map(detector: Scorer, result: SeriesResult, path: Path) -> None:
    """Write the maps of a volume as one NIfTI, float32, in the source's geometry.

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
