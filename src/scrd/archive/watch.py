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
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from scrd.archive.connection import ArchiveError, StudyGone
from scrd.archive.pulse import Pulse
from scrd.archive.state import NOTHING, Job, Outcome, State
from scrd.dicom.uids import tag
from scrd.errors import ScrdError
from scrd.outputs.history import Found


@dataclass(frozen=True)
class Results:
    """What came of a study.

    Attributes:
        files: To store beside the images.
        words: For the log: flagged or not, score, p-value, number of images.
        flagged: Whether something in it is.
        refusal: Why the study does not count as done in spite of its files; empty where it does.
        found: What is kept of it.
    """

    files: Sequence[Path] = ()
    words: str = ""
    flagged: bool = False
    refusal: str = ""
    found: Found = NOTHING


Process = Callable[[Path, str], Results]
"""(folder with a study's images, its Study Instance UID) → what to store beside them.

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

    def store(self, key: str, files: Sequence[Path], models: Collection[str]) -> int:
        """Store results, if any, in place of those that these models left at earlier times.

        Returns:
            How many results of other models are left beside them.
        """


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
    heartbeat_seconds: float = 60.0,
    model_folder: Path | None = None,
) -> Counter[str]:
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
        heartbeat_seconds: How long at least between two lines that say how things stand.
        model_folder: Where the model lies, for whoever asks for the state.

    Returns:
        How often a study was "done", "refused", "failed", or is to be tried again ("retry").

    Raises:
        ArchiveError: with `once`, the archive is away; without, it answers that it does not know
            the request (a wrong address, a wrong password).
        OSError: the disk is full; the study in hand stays in the queue.
    """
    stop = stop or threading.Event()
    shutil.rmtree(state.work, ignore_errors=True)
    state.work.mkdir(mode=0o700)
    misses = 0
    told = heard = time.monotonic()
    outcomes: Counter[str] = Counter()
    pulse = Pulse(
        state.path,
        model=state.model,
        model_folder=model_folder,
        poll_seconds=poll_seconds,
        once=once,
    )

    def back() -> None:
        nonlocal misses, heard
        if misses:
            log.info("%s: back", archive.name)
        misses, heard = 0, time.monotonic()
        pulse.answered()

    def work(job: Job) -> str:
        pulse.begin(tag(job.uid))
        try:
            return _do(archive, process, state, job, attempts, retry_seconds)
        finally:
            pulse.end()

    try:
        with pulse:
            while not stop.is_set():
                try:
                    while archive.poll(state) and not stop.is_set():
                        pulse.answered()
                    while not stop.is_set() and (job := state.claim()):
                        outcomes[work(job)] += 1
                        back()
                except ArchiveError as e:
                    pulse.refused(str(e))
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
                    break
                if time.monotonic() - told >= heartbeat_seconds:
                    told = time.monotonic()
                    log.info("%s, last answer %.0f s ago", standing(state), told - heard)
                stop.wait(poll_seconds)
    finally:
        shutil.rmtree(state.work, ignore_errors=True)
    return outcomes


def standing(state: State) -> str:
    """How many studies came to what, in words."""
    counts = state.counts
    return (
        f"{counts.get('done', 0)} studies done, {state.flagged} of them flagged, "
        f"{counts.get('refused', 0)} refused, {counts.get('failed', 0)} failed, "
        f"{counts.get('queued', 0)} waiting"
    )


def _do(
    archive: Archive,
    process: Process,
    state: State,
    job: Job,
    attempts: int,
    retry_seconds: float,
) -> str:
    """One study; raises ArchiveError when the archive is away, the study then waits."""
    name = tag(job.uid)
    models = {*job.stored, state.model}
    begun = time.monotonic()

    def failed(reason: str) -> str:
        if job.attempts >= attempts:
            seconds = time.monotonic() - begun
            state.finish(job.key, "failed", reason=reason, seconds=seconds)
            log.error("study %s: failed %d times: %s", name, job.attempts, reason)
            return "failed"
        wait = retry_seconds * 2 ** (job.attempts - 1)
        state.retry(job.key, seconds=wait, reason=reason)
        log.warning("study %s: %s; next attempt in %.0f s", name, reason, wait)
        return "retry"

    if job.attempts > attempts:
        return failed("the process did not live through it")
    try:
        with tempfile.TemporaryDirectory(dir=state.work) as scratch:
            folder = Path(scratch, "study")
            folder.mkdir()
            fingerprint = archive.fetch(job.key, folder)
            try:
                results = process(folder, job.uid)
            except ScrdError as e:
                results = Results(refusal=str(e))
            others = archive.store(job.key, results.files, models)
        seconds = time.monotonic() - begun
        words = [results.words, f"{seconds:.1f} s"]
        if job.stored:
            same = set(job.stored) == {state.model}
            whose = "an earlier time" if same else "another model"
            words.append(f"in place of the results of {whose}")
        if others:
            words.append(f"beside {others} results of other models, stored by others")
        said = "; ".join(filter(None, words))
        if results.refusal:
            outcome: Outcome = "refused"
            log.warning("study %s: refused: %s; %s", name, results.refusal, said)
        else:
            outcome = "done"
            log.info("study %s: done, %d results stored; %s", name, len(results.files), said)
        state.finish(
            job.key,
            outcome,
            fingerprint=fingerprint,
            reason=results.refusal,
            flagged=results.flagged,
            stored=bool(results.files),
            found=results.found,
            seconds=seconds,
        )
        return outcome
    except StudyGone:
        state.forget(job.key)
        log.warning("study %s: not in the archive any more", name)
        return "gone"
    except ArchiveError as e:
        if e.away:
            state.put_back(job.key)
            raise
        return failed(str(e))
    except Exception as e:
        if isinstance(e, OSError) and e.errno in _FULL:
            state.put_back(job.key)
            raise
        return failed(_where(e))


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
