"""How watches of an archive are, by the state files that they leave on this machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrd.errors import ScrdError
from scrd.serve.faults import where

if TYPE_CHECKING:  # what reads them needs NumPy and SciPy, which the server starts without
    from scrd.archive.overview import WatchDrift
    from scrd.archive.status import Status

log = logging.getLogger("scrd.serve")

_SHARE = 20  # so many times as long as it took is rested before drift is looked for anew


@dataclass(frozen=True)
class Watched:
    """What is said of a watch; nothing of a patient.

    Attributes:
        state: its state file.
        problem: why nothing is known of it, a sentence; empty where something is.
        line: its drift in a line.
        alarms: of drift, a sentence each.
        found: today, see `Overview.to_dict`; None where nothing is known.
    """

    state: str
    problem: str = ""
    line: str = ""
    alarms: Sequence[str] = ()
    found: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Kept:
    drift: WatchDrift
    model: str | None
    last: float | None  # when the last study was done
    until: float  # of the monotonic clock: not to be looked for anew before


class Watches:
    """Reads state files while their watches go on.

    Args:
        places: state files of `scrd watch`, and folders that hold some; may come later.

    Raises:
        ScrdError: one is there, and no state file, or may not be read.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._mutex = threading.Lock()  # one look at a time
        self._kept: dict[Path, _Kept] = {}
        for place in places:
            _check(place)

    def look(self) -> list[Watched]:
        """At all of them; takes a while where there are new studies."""
        with self._mutex:
            return [self._of(state, problem) for state, problem in self._states()]

    def well(self) -> dict[str, bool]:
        """State file → whether its watch lives and gets on; takes milliseconds."""
        return {str(state): not problem and _is_well(state) for state, problem in self._states()}

    def _states(self) -> Iterator[tuple[Path, str]]:
        """State files, and in place of those that are not there why."""
        if not self._places:
            return
        from scrd.archive.status import find_states

        for place in self._places:
            try:
                for state in find_states([place]):
                    missing = f"{state}: no such file yet; scrd watch makes it when it starts"
                    yield state, "" if state.exists() else missing
            except ScrdError as error:
                yield place, str(error)
            except OSError as error:
                yield place, f"{place}: cannot be read: {error.strerror}"

    def _of(self, state: Path, problem: str) -> Watched:
        if problem:
            return Watched(str(state), problem)
        from scrd.archive.overview import Overview, begin_of
        from scrd.archive.status import read_status

        try:
            status = read_status(state, begin_of())
            drift = self._drift(status)
            found = Overview(status, drift).to_dict()
        except ScrdError as error:
            return Watched(str(state), str(error))
        except Exception as error:  # the others are told all the same
            log.error("a watch could not be looked at: %s", where(error))
            return Watched(str(state), f"{state}: could not be looked at; the log says why")
        return Watched(str(state), "", drift.line, drift.alarms, found)

    def _drift(self, status: Status) -> WatchDrift:
        from scrd.archive.overview import drift_of

        kept, begun = self._kept.get(status.state), time.monotonic()
        if (
            kept is not None
            and kept.model == status.model
            and (begun < kept.until or kept.last == status.last)
        ):
            return kept.drift
        drift, ended = drift_of(status), time.monotonic()
        until = ended + _SHARE * (ended - begun)
        self._kept[status.state] = _Kept(drift, status.model, status.last, until)
        return drift


def _check(place: Path) -> None:
    """Refuse what was meant to be something else; a file that a watch is just making is empty."""
    from scrd.outputs.history_file import is_database

    try:
        meant = not place.is_file() or not place.stat().st_size or is_database(place)
    except OSError as error:
        raise ScrdError(f"{place}: cannot be read: {error.strerror}") from None
    if not meant:
        raise ScrdError(f"{place}: not a state file of scrd watch")


def _is_well(state: Path) -> bool:
    from scrd.archive.status import read_status

    try:
        return read_status(state, time.time()).health == "well"
    except Exception:  # damaged, or just taken away; the page says more
        return False
