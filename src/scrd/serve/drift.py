"""Whether what a model is sent has drifted, out of the results that are kept."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scrd.serve.faults import where
from scrd.serve.metrics import Metrics
from scrd.serve.models import Models, Version
from scrd.serve.store import Store
from scrd.system.files import write_atomically

if TYPE_CHECKING:  # what watches needs NumPy and SciPy, which the server starts without
    from scrd.data.covariates import Covariates
    from scrd.monitor.drift import Drift
    from scrd.monitor.stream import Image, Stream

log = logging.getLogger("scrd.serve")

IMAGES = 20_000
"""How many images a stream holds at most. Where it is passed, or the first result of the stream is
deleted, the older half goes at once: a stream then begins anew, and that must not happen often."""
_SHARE = 20  # so many times as long as it took is rested before results are looked at anew
_ENTRY = tuple[int, str, str, int]  # rowid, result, job, images


@dataclass(frozen=True)
class Said:
    """What is said of the stream of one model; nothing of a patient.

    Attributes:
        name: of the model.
        fingerprint: of the version that answers.
        at: when, seconds since the epoch.
        since: when the first result of the stream came; None where there is none.
        line: all in a line.
        alarm: the highest level that the wealth has passed, or 0.
        alarms: a sentence each.
        found: see `Drift.to_dict`, without paths; None where there is nothing to watch.
    """

    name: str
    fingerprint: str
    at: float
    since: float | None
    line: str
    alarm: int = 0
    alarms: Sequence[str] = ()
    found: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Kept:
    said: Said
    newest: int
    until: float  # of the monotonic clock: not to be looked at anew before


class Drifts:
    """Watches the stream of each model.

    Args:
        store: whose results.
        models: of the store.
        metrics: that are told.
    """

    def __init__(self, store: Store, models: Models, metrics: Metrics) -> None:
        self._store, self._models, self._metrics = store, models, metrics
        self._mutex = threading.Lock()  # one look at a time
        self._kept: dict[str, _Kept] = {}
        self._starts = store.folder / "drift.json"

    def look(self) -> list[Said]:
        """At all models that answer; takes a while where there are new results."""
        return [self._of(version) for version in self._models.versions() if _answers(version)]

    def of(self, name: str) -> Said:
        """What is said of the model of this name.

        Raises:
            KeyError: there is none.
        """
        version = next((v for v in self._models.versions(name) if _answers(v)), None)
        if version is None:
            raise KeyError(name)
        return self._of(version)

    def _of(self, version: Version) -> Said:
        with self._mutex:
            kept = self._kept.get(version.name)
            if (
                kept is not None
                and kept.said.fingerprint == version.fingerprint
                and (time.monotonic() < kept.until or self._newest(version) == kept.newest)
            ):
                return kept.said
            import scrd.monitor.drift  # noqa: F401  not to be counted among the seconds

            begun, newest = time.monotonic(), self._newest(version)
            try:
                said = self._find(version)
            except Exception as error:  # the page shows the rest all the same
                log.error("drift could not be looked for: %s", where(error))
                said = _nothing(version, "not known: it could not be looked for; the log says why")
            ended = time.monotonic()
            until = ended + _SHARE * (ended - begun)
            self._kept[version.name] = _Kept(said, newest, until)
            log10 = 0.0 if said.found is None else said.found["wealth"]["together"]["log10_now"]
            self._metrics.drifted(said.name, 10 ** min(log10, 300.0), said.alarm)
            return said

    def _newest(self, version: Version) -> int:
        """Place of the newest result; 0 where there is none."""
        row = self._store.row(
            # + keeps it from an index by which it would have to sort
            "SELECT rowid FROM results WHERE +shadow = 0 AND model = ? AND fingerprint = ?"
            " ORDER BY rowid DESC LIMIT 1",
            (version.name, version.fingerprint),
        )
        return 0 if row is None else int(row["rowid"])

    def _find(self, version: Version) -> Said:
        from scrd.monitor.drift import find_drift
        from scrd.monitor.words import alarm_lines, in_a_line

        stream, since = self._stream(version)
        if not stream.images:
            return _nothing(version, "no image with a score yet: there is nothing to watch")
        drift = find_drift(stream, self._known(version.fingerprint))
        return Said(
            version.name,
            version.fingerprint,
            time.time(),
            since,
            in_a_line(drift),
            max((alarm.level for alarm in drift.alarms), default=0),
            alarm_lines(drift) if drift.alarms else (),
            _without_paths(drift),
        )

    def _known(self, fingerprint: str) -> Any:
        from scrd.data.contract import Contract
        from scrd.scoring.calibration import Calibration
        from scrd.serve.described import read_description
        from scrd.storage.known import Known
        from scrd.storage.plain import from_plain

        told = read_description(self._store.models, fingerprint)
        calibration = from_plain(Calibration, told["calibration"])
        return Known(calibration, from_plain(Contract, told["contract"]), fingerprint)

    def _stream(self, version: Version) -> tuple[Stream, float | None]:
        """The results of a version, the oldest first, and when the first one came."""
        from scrd.monitor.stream import Stream

        images: list[Image] = []
        unscored, since, table, last = 0, None, -1, ""
        for rowid, result, job, _ in self._entries(version):
            row = self._store.row("SELECT created, detail FROM results WHERE rowid = ?", (rowid,))
            if row is None:  # deleted just now
                continue
            since = row["created"] if since is None else since
            table, last = table + (job != last), job
            detail = json.loads(row["detail"])
            found = [image_of(one, result, detail["study"], table) for one in detail["images"]]
            images += [image for image in found if image is not None]
            unscored += found.count(None)
        return Stream((), tuple(images), unscored), since

    def _entries(self, version: Version) -> list[_ENTRY]:
        """Which results the stream consists of; where it begins is kept beside the store."""
        rows = self._store.rows(
            "SELECT rowid, id, job, images FROM results"
            " WHERE shadow = 0 AND model = ? AND fingerprint = ? ORDER BY rowid",
            (version.name, version.fingerprint),
        )
        entries = [(row["rowid"], row["id"], row["job"], row["images"]) for row in rows]
        if not entries:
            return []
        starts = self._read_starts()
        key = f"{version.name}/{version.fingerprint}"
        rowid, result = starts.get(key, entries[0][:2])
        stream = [entry for entry in entries if entry[0] >= rowid] or entries
        whole = stream[0][1] == result
        count = sum(entry[3] for entry in stream)
        if not whole or count > IMAGES:
            stream = _newest(stream, min(count, IMAGES) // 2)
        if key not in starts or stream[0][1] != result:
            versions = {f"{v.name}/{v.fingerprint}" for v in self._models.versions()}
            kept = {one: start for one, start in starts.items() if one in versions}
            write_atomically(self._starts, json.dumps(kept | {key: stream[0][:2]}, indent=1))
        return stream

    def _read_starts(self) -> dict[str, tuple[int, str]]:
        """By model and version the first result of its stream, and its place."""
        try:
            told = json.loads(self._starts.read_text(encoding="utf-8"))
            return {key: (int(rowid), str(result)) for key, (rowid, result) in told.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("where streams begin cannot be read: %s", where(error))
            return {}


def image_of(
    record: Mapping[str, Any], result: str, study: Mapping[str, Any] | None, table: int
) -> Image | None:
    """An image of the stream, named by its result; None where it has no score.

    Args:
        record: see `scrd.serve.records.image_record`.
        result: that it belongs to.
        study: likewise; None of a picture.
        table: running number of its job.
    """
    from scrd.monitor.stream import Image

    if record.get("score") is None:
        return None
    tag = "" if study is None else study["tag"]
    covariates = _covariates(record.get("covariates"))
    return Image(result, float(record["score"]), bool(record["flag"]), tag, table, covariates)


def _covariates(told: Mapping[str, Any] | None) -> Covariates | None:
    from scrd.data.covariates import ACQUISITION, Covariates
    from scrd.storage.plain import from_plain

    if told is None or not all(math.isfinite(told[name]) for name in ACQUISITION):
        return None
    return from_plain(Covariates, told)


def _newest(entries: Sequence[_ENTRY], images: int) -> list[_ENTRY]:
    """The last ones, of so many images at most, but one at least."""
    place = len(entries) - 1
    held = entries[place][3]
    while place and held + entries[place - 1][3] <= images:
        place -= 1
        held += entries[place][3]
    return list(entries[place:])


def _without_paths(drift: Drift) -> dict[str, Any]:
    found = drift.to_dict()
    del found["tables"], found["reference"]["tables"]
    for alarm in found["alarms"]:
        alarm["result"] = alarm.pop("path")
    return found


def _nothing(version: Version, why: str) -> Said:
    return Said(version.name, version.fingerprint, time.time(), None, why)


def _answers(version: Version) -> bool:
    return version.role == "active"
