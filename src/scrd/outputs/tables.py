"""CSV files that grow row by row and appear whole."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

from scrd.system.files import naming, temporary_beside


class Table:
    """A CSV file, written to a temporary one that takes its place when the ``with`` block ends.

    After an exception what was there before is left, and the rows so far lie beside it in
    ``NAME.partial.csv``. A table without rows leaves no file, and removes one of an earlier run.
    File names that are not UTF-8 are written byte by byte.

    Attributes:
        path: the file.
        count: rows so far.
    """

    def __init__(
        self, path: Path, header: Sequence[str], *, keep_empty: bool = False, room: int = 0
    ) -> None:
        """Open it; its folder is made.

        Args:
            path: the file.
            header: the names of the columns.
            keep_empty: write the header also where there are no rows.
            room: bytes to set aside on the disk at once, so that what is written beside the table
                cannot take its place.

        Raises:
            OSError: the place cannot be written to, or has no such room.
        """
        self.path = path
        self.count = 0
        self._header = header
        self._temporary = temporary_beside(path)
        self._partial = path.with_name(f"{path.stem}.partial.csv")
        self._stream: TextIO | None = None
        self._keep_empty = keep_empty
        if keep_empty or room:
            with naming(path, instead_of=self._temporary):
                self._open(room)

    def add(self, *cells: object) -> None:
        """Append a row."""
        with naming(self.path, instead_of=self._temporary):
            if self._stream is None:
                self._open(0)
            self._writer.writerow(cells)
        self.count += 1

    def _open(self, room: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(self._temporary, "wb") as file:
                file.write(bytes(room))
        except OSError:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            raise
        self._stream = open(  # noqa: SIM115
            self._temporary, "r+", newline="", encoding="utf-8", errors="surrogateescape"
        )
        self._writer = csv.writer(self._stream, lineterminator="\n")
        self._writer.writerow(self._header)

    def _close(self, *, complete: bool) -> None:
        if self._stream is not None:
            with self._stream as stream:
                stream.truncate(stream.tell())
        if not complete:
            if self.count:
                os.replace(self._temporary, self._partial)
            return
        if self.count or self._keep_empty:
            os.replace(self._temporary, self.path)
        else:
            self.path.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            with naming(self.path, instead_of=self._temporary):
                self._close(complete=kind is None)
        finally:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
