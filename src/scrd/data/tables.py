"""Tables as people write them: commas, semicolons or tabs, any UTF, `split.csv` and `boxes.csv`."""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scrd.data.finding import PICTURE_SUFFIXES
from scrd.data.names import split_of
from scrd.data.record import Box, Record
from scrd.errors import ManifestError

REQUIRED = ("path", "label", "class", "split")
GROUPING = ("patient", "group", "study")
_BOX = ("x_min", "y_min", "x_max", "y_max")
_DELIMITERS = ",;\t|"
_LABELS = {"0": 0, "0.0": 0, "0,0": 0, "1": 1, "1.0": 1, "1,0": 1}
_BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_table(table: Path) -> Iterator[Record]:
    """The images that a table lists, in its order.

    Raises:
        ManifestError: The table cannot be read, or contradicts itself; with the line.
    """
    seen: dict[str, int] = {}
    for line, row in _rows(table, REQUIRED):
        record = _from_row(table, f"line {line}", row)
        key = os.path.normpath(record.path)
        if key in seen:
            reason = f"line {line}: {record.name} is already on line {seen[key]}"
            raise ManifestError(table, reason)
        seen[key] = line
        yield record


def add_boxes(table: Path, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Give images the boxes of a table.

    A row belongs to the image of its path, relative to the table's folder or absolute; where
    there is none, to the only image whose path is the same but for separators, capitals or the
    suffix.

    Args:
        table: With columns `path`, `x_min`, `y_min`, `x_max` and `y_max`.
        records: The images.

    Returns:
        The images with their boxes; and in sentences, what was found otherwise or not at all.

    Raises:
        ManifestError: A box is empty or no number; with the line.
    """
    exact = {os.path.normpath(record.path): k for k, record in enumerate(records)}
    alike: dict[str, list[int]] = {}
    for path, k in exact.items():
        for key in {path.casefold(), os.path.splitext(path)[0].casefold()}:
            alike.setdefault(key, []).append(k)
    boxes: dict[int, list[Box]] = {}
    lost: Counter[str] = Counter()
    otherwise: dict[str, str] = {}
    for line, row in _rows(table, ("path", *_BOX)):
        box = _box(table, line, row)
        path = _key(table, row["path"])
        if path in exact:
            k = exact[path]
        else:
            stem, suffix = os.path.splitext(path)
            whole = stem if suffix.lower() in PICTURE_SUFFIXES else path
            candidates = alike.get(path.casefold()) or alike.get(whole.casefold(), [])
            if len(candidates) != 1:
                lost[row["path"]] += 1
                continue
            k = candidates[0]
            otherwise[row["path"]] = records[k].name
        boxes.setdefault(k, []).append(box)
    notes = [] if boxes or lost else [f"{table.name}: no row"]
    if otherwise:
        shown = some([f"{name!r} as {image!r}" for name, image in otherwise.items()])
        notes.append(f"{table.name}: {len(otherwise)} paths were understood otherwise: {shown}")
    if lost:
        notes.append(
            f"{table.name}: {lost.total()} rows fit no image of the data set: {some(list(lost))}"
        )
    normal = [records[k].name for k in boxes if records[k].label == 0]
    if normal:
        notes.append(f"{table.name}: boxes on {len(normal)} images labelled normal: {some(normal)}")
    return [
        replace(record, boxes=tuple(boxes[k])) if k in boxes else record
        for k, record in enumerate(records)
    ], notes


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _key(table: Path, text: str) -> str:
    """Absolute, normal path of a cell; backslashes separate where no such file is there."""
    path = os.path.normpath(table.parent / text)
    if "\\" in text and not os.path.exists(path):
        path = os.path.normpath(table.parent / text.replace("\\", "/"))
    return path


def _box(table: Path, line: int, row: Mapping[str, str]) -> Box:
    try:
        x_min, y_min, x_max, y_max = (float(row[column].replace(",", ".")) for column in _BOX)
    except ValueError as error:
        raise ManifestError(table, f"line {line}: {error}") from error
    if not all(map(math.isfinite, (x_min, y_min, x_max, y_max))):
        raise ManifestError(table, f"line {line}: a corner of the box is no finite number")
    if not (x_min < x_max and y_min < y_max):
        reason = "the box is empty: x_min must be below x_max, and y_min below y_max"
        raise ManifestError(table, f"line {line}: {reason}")
    return x_min, y_min, x_max, y_max


def _rows(table: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column of each row that is not blank."""
    text = _text(table)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count) if first else ","
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        columns = [column.strip() for column in next(rows, [])]
        columns = [c.lower() if c.lower() in (*required, *GROUPING, "mask") else c for c in columns]
        _check_columns(table, columns, required)
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                reason = f"line {rows.line_num}: {len(cells)} cells for {len(columns)} columns"
                raise ManifestError(table, reason)
            yield (
                rows.line_num,
                {column: cell.strip() for column, cell in zip(columns, cells, strict=True)},
            )
    except csv.Error as error:
        raise ManifestError(table, f"cannot be read as CSV: {error}") from error


def _text(table: Path) -> str:
    try:
        content = table.read_bytes()
    except OSError as error:
        raise ManifestError(table, f"cannot be read as CSV: {error}") from error
    encoding = _BOMS.get(content[:2], "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        reason = f"cannot be read as CSV: it is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise ManifestError(table, reason) from error
    if "\0" in text:
        raise ManifestError(table, "cannot be read as CSV: it holds zero bytes; save it as UTF-8")
    return text


def _check_columns(table: Path, columns: list[str], required: Sequence[str]) -> None:
    missing = [column for column in required if column not in columns]
    if missing:
        there = f"; the columns are {', '.join(columns)}" if any(columns) else "; the line is empty"
        raise ManifestError(table, f"line 1: no column {', '.join(missing)}{there}")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise ManifestError(table, f"line 1: column {', '.join(repeated)} more than once")


def _from_row(table: Path, where: str, row: Mapping[str, str]) -> Record:
    for column in ("path", "class"):
        if not row[column]:
            raise ManifestError(table, f"{where}: {column} is empty")
    label = _LABELS.get(row["label"])
    if label is None:
        reason = f"{where}: label is {row['label']!r}, not 0 (normal) or 1 (abnormal)"
        raise ManifestError(table, reason)
    split = split_of(row["split"])
    if split not in ("train", "test"):
        raise ManifestError(table, f"{where}: split is {row['split']!r}, not train or test")
    return Record(
        path=_path(table, row["path"]),
        name=row["path"],
        label=label,
        kind=row["class"],
        split=split,
        group=next((row[column] for column in GROUPING if row.get(column)), None),
        mask=_path(table, row["mask"]) if row.get("mask") else None,
        attributes={c: cell for c, cell in row.items() if c not in (*REQUIRED, "mask")},
    )


def _path(table: Path, text: str) -> Path:
    path = table.parent / text
    if "\\" in text and not path.exists():
        path = table.parent / text.replace("\\", "/")
    return path
