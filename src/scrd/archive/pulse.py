"""Signs of life of a watch, in its state file: that it lives, and what the archive says."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from scrd.errors import ScrdError
from scrd.system.version import __version__

BEAT_SECONDS = 10.0
"""Between two signs of life. A thread of its own gives them, so that a long study is no silence."""


class Pulse:
    """Of one run of a watch, from ``with`` to the end of the block.

    What is told to it is written with the next beat; none of it is worth a wait for the disk.

    Args:
        path: The state file.
        model: Fingerprint of the model.
        model_folder: Where the model lies; None where that is not known.
        poll_seconds: Between two looks at the archive.
        once: Whether the run ends by itself.
    """

    def __init__(
        self,
        path: Path,
        *,
        model: str,
        model_folder: Path | None = None,
        poll_seconds: float = 5.0,
        once: bool = False,
    ) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told: dict[str, object] = {
            "model_folder": None if model_folder is None else str(model_folder.resolve()),
            "model": model,
            "version": __version__,
            "pid": os.getpid(),
            "started": time.time(),
            "poll_seconds": poll_seconds,
            "once": once,
            "study": None,
            "begun": None,
            "trouble": None,
            "ended": None,
            "why": None,
        }
        self._in_trouble = False

    def answered(self) -> None:
        """The archive has answered."""
        self._tell(contacted=time.time(), trouble=None)
        if self._in_trouble:
            self._in_trouble = False
            self.beat()

    def refused(self, trouble: str) -> None:
        """The archive has not answered, or otherwise than it should.

        Args:
            trouble: What is wrong, without patient data.
        """
        self._tell(trouble=trouble)
        if not self._in_trouble:
            self._in_trouble = True
            self.beat()

    def begin(self, study: str) -> None:
        """A study, by its tag, is in hand."""
        self._tell(study=study, begun=time.time())

    def end(self) -> None:
        """No study is in hand."""
        self._tell(study=None, begun=None)

    def beat(self) -> None:
        """Write what was told. Where that fails the next beat does it."""
        with self._lock:
            told = {**self._told, "beat": time.time()}
            names = ", ".join(f"{name} = ?" for name in told)
            try:
                # names of columns, all from this file
                self._db.execute(f"UPDATE watcher SET {names}", list(told.values()))  # noqa: S608
            except sqlite3.Error:
                return
            self._told.clear()

    def _tell(self, **told: object) -> None:
        with self._lock:
            self._told |= told

    def _beats(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self.beat()

    def __enter__(self) -> Pulse:
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        # on the disk when the system likes: a sign of life need not outlive it
        self._db.execute("PRAGMA synchronous = OFF")
        self.beat()
        self._thread = threading.Thread(target=self._beats, name="pulse", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._tell(study=None, begun=None, ended=time.time(), why=_cause(error))
        self.beat()
        with suppress(sqlite3.Error):
            self._db.close()


def _cause(error: BaseException | None) -> str:
    """Why a run ended; of others' exceptions not the text, which may quote a header or a path."""
    if error is None:
        return ""
    if isinstance(error, ScrdError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
