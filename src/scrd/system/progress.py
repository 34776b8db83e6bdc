"""Progress: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

FIRST, EVERY = 1.0, 20.0
"""Seconds until the first line, and between two. A log promises one every 30."""
_RECENT = 60.0


class Advance(Protocol):
    """Told how much is done in all, and what else there is to say."""

    def __call__(self, done: int, info: str = "") -> None:
        """So many are done; ``info`` takes the place of the speed."""


@contextmanager
def counting(
    label: str, total: int | None, enabled: bool, unit: str = "image"
) -> Iterator[Advance]:
    """Show on standard error how far a piece of work is.

    On a terminal that is a bar. Elsewhere it is a line at the end and, of what takes more than a
    second, a line at its beginning and then every twenty seconds, whether anything has moved or
    not: what, how far, how fast, how long still. What is not counted and takes less than a second
    is passed over.

    Args:
        label: what is done, such as "scoring".
        total: how many of ``unit``; None where that is not known.
        enabled: False shows nothing.
        unit: what is counted, in the singular.

    Yields:
        A function that is told how many are done; what it is told besides takes the place of the
        speed.
    """
    if not enabled:
        yield lambda done, info="": None
    elif (console := Console(stderr=True)).is_terminal:
        with _bar(console, transient=total is None) as progress:
            task = progress.add_task(label, total=total, info="")

            def advance(done: int, info: str = "") -> None:
                progress.update(task, completed=done)
                if info:
                    progress.update(task, info=info)

            yield advance
    else:
        lines = _Lines(label, total, unit)
        with lines.ticking():
            yield lines.advance
        if total is not None or lines.seconds() > FIRST:
            say(lines.summary())


def say(line: str) -> None:
    """Write a line to standard error at once; where nobody can read it, go on without."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """In words: ``45 s``, ``2 min 10 s``, ``1 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _bar(console: Console, *, transient: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
        console=console,
        transient=transient,
    )


class _Lines:
    """What the lines of one piece of work say."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._started = time.monotonic()
        self._info = ""
        # the time before the first word is set-up, or its count was done by an earlier run
        self._recent: deque[tuple[float, int]] = deque()

    def advance(self, done: int, info: str = "") -> None:
        now = time.monotonic()
        self._recent.append((now, done))
        while len(self._recent) > 2 and self._recent[1][0] < now - _RECENT:
            self._recent.popleft()
        self._info = info or self._info

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Write lines from a thread of their own, so that one slow step does not silence them."""
        ended = threading.Event()

        def tick() -> None:
            wait = FIRST
            while not ended.wait(wait):
                say(self.text())
                wait = EVERY

        ticker = threading.Thread(target=tick, name="scrd-progress", daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()

    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self._started

    def text(self) -> str:
        """What, how far, how fast, how long still."""
        if self._total is None:
            return f"{self._label}: {duration(self.seconds())} so far"
        recent = tuple(self._recent)
        done = recent[-1][1] if recent else 0
        parts = [f"{self._label}: {self._unit} {done} of {self._total}"]
        rate = (done - recent[0][1]) / max(time.monotonic() - recent[0][0], 1e-9) if recent else 0
        if self._info:
            parts.append(self._info)
        elif rate:
            parts.append(self._speed(rate))
        if rate:
            parts.append(f"{duration((self._total - done) / rate)} left")
        return ", ".join(parts)

    def summary(self) -> str:
        """What was done, in what time."""
        seconds = self.seconds()
        took = f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
        if self._total is None:
            return f"{self._label}: done in {took}"
        count = f"{self._total} {self._unit}{'' if self._total == 1 else 's'}"
        return f"{self._label}: {count} in {took}" + (f", {self._info}" if self._info else "")

    def _speed(self, rate: float) -> str:
        return f"{rate:.0f} {self._unit}s/s" if rate >= 10 else f"{rate:.2g} {self._unit}s/s"
