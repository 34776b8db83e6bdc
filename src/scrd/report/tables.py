"""CSV files that grow row by row and appear whole."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO


class Table:
    """A CSV file, written to a temporary one that takes its place when the ``with`` block ends.

    After an exception what was there before is left. A table without rows leaves no file, and
    removes one of an earlier run.

    Attributes:
        path: the file.
        count: rows so far.
    """

    def __init__(self, path: Path, header: Sequence[str], *, keep_empty: bool = False) -> None:
        """Open it; its folder is made.

        Args:
            path: the file.
            header: the names of the columns.
            keep_empty: write the header also where there are no rows.
        """
        self.path = path
        self.count = 0
        self._header = header
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._stream: TextIO | None = None
        if keep_empty:
            self._open()

    def add(self, *cells: object) -> None:
        """Append a row."""
        if self._stream is None:
            self._open()
        self._writer.writerow(cells)
        self.count += 1

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = open(self._temporary, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._writer = csv.writer(self._stream, lineterminator="\n")
        self._writer.writerow(self._header)

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()
        if kind is not None:
            self._temporary.unlink(missing_ok=True)
        elif self._stream is not None:
            os.replace(self._temporary, self.path)
        else:
            self.path.unlink(missing_ok=True)
