"""Reading the tables of a published data set, and saying in one line what is not as published."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from scrd.errors import ScrdError


class SourceError(ScrdError):
    """A data set is not as its source publishes it; the message names the file and the cause."""


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped cells by column of each row of a CSV file.

    Raises:
        SourceError: The file is missing, is not CSV, or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream, strict=True)
            header = [cell.strip() for cell in next(rows, [])]
            absent = [column for column in columns if column not in header]
            if absent:
                raise SourceError(f"{path}: no column {', '.join(absent)}")
            for cells in rows:
                if len(cells) != len(header):
                    reason = f"{len(cells)} cells for {len(header)} columns"
                    raise SourceError(f"{path}: line {rows.line_num}: {reason}")
                stripped = (cell.strip() for cell in cells)
                yield rows.line_num, dict(zip(header, stripped, strict=True))
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read as CSV: {error}") from error


def find_files(folder: Path, ids: Collection[str], suffix: str, table: Path) -> dict[str, Path]:
    """The file of each image id, folder/id + suffix.

    Args:
        folder: Where the files are.
        ids: The ids that the table lists.
        suffix: Suffix of the files, with its dot.
        table: The table, for messages.

    Raises:
        SourceError: An id is not the name of a file in the folder, or has no file.
    """
    for name in ids:
        if name != Path(name).name or "\\" in name:
            raise SourceError(f"{table}: {name!r} is not the name of an image")
    paths = {name: folder / f"{name}{suffix}" for name in ids}
    absent = [path for path in paths.values() if not path.is_file()]
    if absent:
        raise SourceError(
            f"{absent[0]}: no such file, though {table.name} lists it "
            f"({len(absent)} of {len(paths)} are missing)"
        )
    return paths
