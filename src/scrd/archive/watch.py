"""Score what arrives, one study at a time, until told to stop.

Nothing is lost: a study leaves the queue only when its results are stored. Nothing is repeated: a
study comes back into the queue only when its images, or the model, are others than last time. A
process that is killed between storing results and saying so does that study again, and the same
results take the place of the first ones.
"""

from __future__ import annotations

import errno
import logging
import shutil
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from scrd.archive.connection import ArchiveError, StudyGone
from scrd.archive.state import Job, State
from scrd.dicom.uids import tag
from scrd.errors import ScrdError

Process = Callable[[Path, str], Sequence[Path]]
"""(folder with a study's images, its Study Instance UID) → DICOM files to store beside them.

May write them beside the folder: its parent is removed when the study is done. Raises ScrdError to
refuse the study, which is final until its images change; any other exception is tried again.
"""

_LONGEST = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger("scrd.watch")


class Archive(Protocol):
    """Where studies come from and results go: an Orthanc, a folder."""

    @property
    def name(self) -> str:
        """Address or folder, without credentials."""

    def poll(self, state: State) -> bool:
        """Record what is new; returns whether there is more to read."""

    def fetch(self, key: str, folder: Path) -> str:
        """Put the images of a study into a folder; returns their fingerprint."""

    def store(self, key: str, files: Sequence[Path]) -> None:
        """Store results, in place of those of an earlier time."""


def watch(
    archive: Archive,
    process: Process,
    state: State,
    *,
    poll_seconds: float = 5.0,
    once: bool = False,
    stop: threading.Event | None = None,
    attempts: int = 5,
    retry_seconds: float = 30.0,
) -> None:
    """Score every complete study of an archive and store the results beside it.

    Args:
        archive: Where studies come from and results go.
        process: The work on one study.
        state: What is known already.
        poll_seconds: Wait between two looks at the archive.
        once: Do what is there and return, instead of waiting for more.
        stop: Set to stop after the study in hand; see :func:`stopping`.
        attempts: How often a study is begun before it counts as failed.
        retry_seconds: Wait before the second attempt, doubled for each further one.

    Raises:
        ArchiveError: with `once`, the archive is away; without, it answers that it does not know
            the request (a wrong address, a wrong password).
        OSError: the disk is full; the study in hand stays in the queue.
    """
    stop = stop or threading.Event()
    shutil.rmtree(state.work, ignore_errors=True)
    state.work.mkdir(mode=0o700)
    misses = 0

    def back() -> None:
        nonlocal misses
        if misses:
            log.info("%s: back", archive.name)
        misses = 0

    try:
        while not stop.is_set():
            try:
                while archive.poll(state) and not stop.is_set():
                    pass
                while not stop.is_set() and (job := state.claim()):
                    _do(archive, process, state, job, attempts, retry_seconds)
                    back()
            except ArchiveError as e:
                refused = e.status is not None and e.status < 500 and not e.away
                if once or refused:
                    raise
                wait = min(2.0**misses, _LONGEST)
                misses += 1
                log.warning("%s; next try in %.0f s", e, wait)
                stop.wait(wait)
                continue
            back()
            if once:
                return
            stop.wait(poll_seconds)
    finally:
        shutil.rmtree(state.work, ignore_errors=True)


def _do(
    archive: Archive,
    process: Process,
    state: State,
    job: Job,
    attempts: int,
    retry_seconds: float,
) -> None:
    """One study; raises ArchiveError when the archive is away, the study then waits."""
    name = tag(job.uid)

    def failed(reason: str) -> None:
        if job.attempts >= attempts:
            state.finish(job.key, "failed", reason=reason)
            log.error("study %s: failed %d times: %s", name, job.attempts, reason)
        else:
            wait = retry_seconds * 2 ** (job.attempts - 1)
            state.retry(job.key, seconds=wait, reason=reason)
            log.warning("study %s: %s; next attempt in %.0f s", name, reason, wait)

    if job.attempts > attempts:
        failed("the process did not live through it")
        return
    try:
        with tempfile.TemporaryDirectory(dir=state.work) as scratch:
            folder = Path(scratch, "study")
            folder.mkdir()
            fingerprint = archive.fetch(job.key, folder)
            try:
                files = process(folder, job.uid)
            except ScrdError as e:
                state.finish(job.key, "refused", fingerprint=fingerprint, reason=str(e))
                log.warning("study %s: refused: %s", name, e)
                return
            archive.store(job.key, files)
        state.finish(job.key, "done", fingerprint=fingerprint)
        log.info("study %s: done, %d results stored", name, len(files))
    except StudyGone:
        state.forget(job.key)
        log.warning("study %s: not in the archive any more", name)
    except ArchiveError as e:
        if e.away:
            state.put_back(job.key)
            raise
        failed(str(e))
    except Exception as e:
        if isinstance(e, OSError) and e.errno in _FULL:
            state.put_back(job.key)
            raise
        failed(_where(e))


def _where(e: Exception) -> str:
    """Type and place of an exception; its text may quote a header."""
    frame = traceback.extract_tb(e.__traceback__)[-1]
    return f"{type(e).__name__} in {Path(frame.filename).name}, line {frame.lineno}"


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets; a second one of them ends the process at once.

    To be used in the main thread.
    """
    stop = threading.Event()
    previous = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, _: FrameType | None) -> None:
        log.info("%s: stopping after the study in hand", signal.Signals(number).name)
        for n, handler in previous.items():
            signal.signal(n, handler)
        stop.set()

    for number in previous:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
