"""The training log on disk: it grows while training runs, with a picture to look at meanwhile."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scrd.system.files import write_atomically
from scrd.training.log import LogEntry

LINES, PICTURE = "training.jsonl", "training.svg"
REDRAW = 20.0
"""Seconds between two pictures, at the least."""
_SHARE = 0.02

Draw = Callable[[Sequence[Mapping[str, Any]]], str]
"""From entries as mappings to SVG text."""


def to_lines(log: Sequence[LogEntry]) -> str:
    """JSON, a line an entry."""
    return "".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in log)


class Journal:
    """Writes ``training.jsonl`` and ``training.svg`` into a folder.

    Args:
        folder: where to write; must be there.
        draw: makes the picture.
    """

    def __init__(self, folder: Path, draw: Draw) -> None:
        self._folder, self._draw = folder, draw
        self._log: list[LogEntry] = []
        self._next_picture = 0.0

    def begin(self, log: Sequence[LogEntry]) -> None:
        """Start with what an earlier run has logged up to its checkpoint; what came later goes."""
        self._log = list(log)
        write_atomically(self._folder / LINES, to_lines(self._log))

    def add(self, entry: LogEntry) -> None:
        """Append an entry; draw it with the others if the last picture is old enough."""
        self._log.append(entry)
        with open(self._folder / LINES, "a", encoding="utf-8") as file:
            file.write(to_lines([entry]))
        if time.monotonic() >= self._next_picture:
            self.draw()

    def draw(self) -> None:
        """Draw what there is, whole or not at all; the next one waits until it has paid off."""
        if not self._log:
            return
        started = time.monotonic()
        picture = self._draw([dataclasses.asdict(entry) for entry in self._log])
        write_atomically(self._folder / PICTURE, picture)
        ended = time.monotonic()
        self._next_picture = ended + max(REDRAW, (ended - started) / _SHARE)
