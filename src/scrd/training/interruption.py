"""Ctrl-C during a training: the step in hand is finished, so that it can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def finishing_the_step(wanted: bool) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as it always does.

    A signal that the process was told to ignore stays ignored.

    Args:
        wanted: False leaves the signals alone, as does a thread other than the main one, which
            cannot be told of signals.
    """
    stop = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    previous = {n: handler for n, handler in handlers.items() if handler is not signal.SIG_IGN}

    def give_back() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        give_back()
        stop.set()

    for number in previous:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        give_back()
