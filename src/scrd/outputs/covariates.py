"""The table beside ``scores.csv`` that says where images come from, for `scrd monitor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scrd.data.covariates import ACQUISITION
from scrd.data.source import Source
from scrd.dicom.uids import tag
from scrd.outputs.tables import Table
from scrd.scoring.scorer import Scored

NAME = "covariates.csv"
DIGITS = 16
"""Of the model's fingerprint that a row holds."""
COLUMNS = (
    *("path", "model", "study", "width", "height", "row_spacing", "column_spacing"),
    *("manufacturer", "format"),
    *ACQUISITION,
)


@contextmanager
def covariate_table(
    folder: Path, model: str | None, room: int
) -> Iterator[Callable[[Source, Scored], None]]:
    """``covariates.csv``, a row a scored image; yields what appends one.

    Args:
        folder: where ``scores.csv`` is written too.
        model: fingerprint of the detector.
        room: bytes to set aside for it.
    """
    with Table(folder / NAME, COLUMNS, room=room) as table:

        def add(source: Source, scored: Scored) -> None:
            found = scored.covariates
            if found is None:
                return
            table.add(
                str(source),
                (model or "")[:DIGITS],
                # a name for the study that names nobody, as in the files' names
                tag(source.series.study) if source.series else "",
                found.width,
                found.height,
                *(found.spacing or ("", "")),
                found.manufacturer or "",
                found.format or "",
                found.brightness,
                found.contrast,
                found.sharpness,
            )

        yield add
