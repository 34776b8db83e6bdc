"""Reading what `scrd score` and `scrd watch` left: a stream of images, in the order of arrival."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scrd.data.covariates import Covariates
from scrd.errors import ScrdError
from scrd.outputs.covariates import COLUMNS, DIGITS
from scrd.outputs.covariates import NAME as COVARIATES
from scrd.outputs.history_file import is_database, models, read_images, reading
from scrd.outputs.history_file import unscored as unscored_in

SCORES = "scores.csv"

_NEEDED = {SCORES: ("path", "score", "flag"), COVARIATES: COLUMNS}


class MonitorError(ScrdError):
    """A table of scores cannot be used; the message names the file and the cause."""


@dataclass(frozen=True)
class Image:
    """A scored image.

    Attributes:
        path: as ``scores.csv`` names it; of a state file, which keeps no names, study and place.
        score: larger is more anomalous.
        flag: whether it was flagged.
        study: a name for its study; empty where that is not known.
        table: which table of the stream it stands in, from 0; in a state file, each time that a
            study was done counts as a table.
        covariates: where it comes from; None where no ``covariates.csv`` tells.
    """

    path: str
    score: float
    flag: bool
    study: str
    table: int
    covariates: Covariates | None


@dataclass(frozen=True)
class Stream:
    """The tables of a stream.

    Attributes:
        tables: the files, in the order of arrival.
        images: the scored ones, in that order.
        unscored: how many images have a row, but no score.
    """

    tables: tuple[Path, ...]
    images: tuple[Image, ...]
    unscored: int


def read_stream(places: Sequence[Path], model: str, *, apart_from: Sequence[Path] = ()) -> Stream:
    """Read tables of scores, and the covariates beside them.

    Args:
        places: ``scores.csv`` files, folders that hold one, or state files of `scrd watch`, in the
            order of arrival.
        model: fingerprint of the model, in hexadecimal.
        apart_from: tables that must not be among them.

    Raises:
        HistoryError: a state file cannot be read.
        MonitorError: a file is missing, given twice, lacks a column, holds something else than
            numbers, or was made by another model; or there is no score at all.
    """
    tables: list[Path] = []
    images: list[Image] = []
    unscored = count = 0
    for place in places:
        path = place / SCORES if place.is_dir() else place
        if any(path.resolve() == other.resolve() for other in (*tables, *apart_from)):
            raise MonitorError(f"{path}: given twice; an image counts once")
        tables.append(path)
        if path.is_file() and is_database(path):
            kept, lost = _of_state(path, model, count)
            images += kept
            unscored += lost
            count = kept[-1].table + 1 if kept else count
            continue
        beside = _covariates(path.with_name(COVARIATES), model)
        for line, row in _rows(path, SCORES):
            if not row["score"]:
                unscored += 1
                continue
            study, covariates = beside.get(row["path"], ("", None))
            score = _number(path, line, row, "score")
            flag = row["flag"] == "1"
            images.append(Image(row["path"], score, flag, study, count, covariates))
        count += 1
    if not images:
        raise MonitorError(f"{tables[0]}: no image with a score: there is nothing to watch")
    return Stream(tuple(tables), tuple(images), unscored)


def _of_state(path: Path, model: str, count: int) -> tuple[list[Image], int]:
    """Images of a state file that this model scored, and how many it could not score.

    Args:
        path: the file.
        model: fingerprint.
        count: of the tables before it.
    """
    with reading(path) as db:
        kept, lost, others = list(read_images(db, model)), unscored_in(db, model), models(db)
    if not kept and others:
        raise MonitorError(
            f"{path}: no image was scored by the model {model[:DIGITS]}, only by "
            f"{', '.join(other[:DIGITS] for other in others)}: scores of two models cannot be "
            "compared"
        )
    images = []
    last = None
    for one in kept:
        count += last is not None and one.entry != last
        last = one.entry
        seen = one.image
        name = f"study {seen.study}, image {one.place}"
        images.append(Image(name, seen.score, seen.flag, seen.study, count, seen.covariates))
    return images, lost


def _covariates(path: Path, model: str) -> dict[str, tuple[str, Covariates]]:
    """Name of an image → name of its study, and the rest; empty where there is no such file."""
    if not path.exists():
        return {}
    found = {}
    for line, row in _rows(path, COVARIATES):
        if not row["model"] or not model.startswith(row["model"]):
            raise MonitorError(
                f"{path}, line {line}: scored by the model {row['model'] or 'that was not saved'}, "
                f"not by {model[: len(row['model']) or None]}: scores of two models cannot be "
                "compared"
            )

        def number(column: str, line: int = line, row: Mapping[str, str] = row) -> float:
            return _number(path, line, row, column)

        spaced = bool(row["row_spacing"])
        found[row["path"]] = (
            row["study"],
            Covariates(
                width=int(number("width")),
                height=int(number("height")),
                spacing=(number("row_spacing"), number("column_spacing")) if spaced else None,
                manufacturer=row["manufacturer"] or None,
                format=row["format"] or None,
                brightness=number("brightness"),
                contrast=number("contrast"),
                sharpness=number("sharpness"),
            ),
        )
    return found


def _rows(path: Path, kind: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line and cells of each row."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictReader(file, restval="")
            absent = [name for name in _NEEDED[kind] if name not in (table.fieldnames or ())]
            if absent:
                raise MonitorError(
                    f"{path}: not a {kind} of `scrd score`: no column {', '.join(absent)}"
                )
            for row in table:
                yield table.line_num, row
    except OSError as e:
        raise MonitorError(f"{path}: cannot be read: {e.strerror or e}") from e
    except csv.Error as e:
        raise MonitorError(f"{path}: not a table: {e}") from e


def _number(path: Path, line: int, row: Mapping[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MonitorError(f"{path}, line {line}: {column} is no number: {row[column]!r}")
    return value
