"""The process that scores: loads models, takes jobs, writes maps, says what it found.

It writes to no database: what it leaves in ``work`` counts when the server has taken it over.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from scrd.data.prepared import measure_window
from scrd.data.reading import read_info
from scrd.data.sample import even
from scrd.data.series import Listing, list_sources
from scrd.data.source import Source
from scrd.errors import ImageError, ScrdError
from scrd.export.loading import load_scorer
from scrd.scoring.scorer import Scorer
from scrd.scoring.verdicts import SeriesResult, collect
from scrd.serve.channel import Channel
from scrd.serve.described import describe
from scrd.serve.faults import where
from scrd.serve.records import Result, failure_row, picture_row, series_row
from scrd.system.allocator import reused_memory
from scrd.system.threads import use_threads, wait_politely

_SAMPLE = 8  # images of a job that say which model knows it
_TELL = 0.2  # seconds between two words on how far a job is
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_MAP = np.zeros((0, 0), np.float32)


class Worker:
    """Models by fingerprint, and the work on jobs."""

    def __init__(self, channel: Channel, store: Path, device: str, batch_size: int) -> None:
        self._channel = channel
        self._store = store
        self._device = device
        self._batch_size = batch_size
        self._scorers: dict[str, Scorer] = {}

    def run(self) -> None:
        """Do what the server says, for ever."""
        with reused_memory():  # across jobs: most are of one image
            while True:
                message = self._channel.next(self._together)
                kind = message.pop("do")
                if kind == "load":
                    self.load(**message)
                elif kind == "unload":
                    self._scorers.pop(message["fingerprint"], None)
                elif kind == "score":
                    self.score(**message)

    def _together(self, message: dict[str, Any], later: Mapping[str, Any]) -> bool:
        """Take jobs that came one by one into one message, where a batch has room for them."""
        if message["do"] != "score" or later["do"] != "score":
            return False
        images = sum(len(job["names"]) for job in [*message["jobs"], *later["jobs"]])
        if images > self._batch_size or message["models"] != later["models"]:
            return False
        message["jobs"] = [*message["jobs"], *later["jobs"]]
        return True

    def load(self, name: str, folder: str) -> None:
        """Load a model beside those that are there."""
        try:
            scorer = load_scorer(Path(folder), self._device)
            scorer.calibration.require(f"{folder}: a service answers with p-values")
            assert scorer.fingerprint is not None
            describe(self._store / "models", scorer)
            self._scorers[scorer.fingerprint] = scorer
        except Exception as error:
            told = str(error) if isinstance(error, ScrdError | OSError) else where(error)
            self._channel.tell(say="not loaded", name=name, folder=folder, reason=told)
        else:
            self._channel.tell(
                say="loaded",
                name=name,
                folder=folder,
                fingerprint=scorer.fingerprint,
                silence=scorer.calibration.silence,
            )

    def score(
        self, jobs: Sequence[Mapping[str, Any]], models: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Score jobs, those of one model together.

        Args:
            jobs: each with ``id``, ``names`` of its files, ``model`` that was asked for, and
                ``most`` images that it may have.
            models: name → ``active`` fingerprint and, of a model on trial, ``shadow``.
        """
        listed: list[tuple[Mapping[str, Any], Listing, str]] = []
        for job in jobs:
            if self._channel.resting.is_set():
                self._channel.tell(say="back", job=job["id"])
                continue
            self._channel.tell(say="begun", job=job["id"])
            try:
                folder = self._store / "uploads" / job["id"]
                listing = list_sources([folder / str(i) for i in range(len(job["names"]))])
                if len(listing.sources) > job["most"]:
                    raise ScrdError(
                        f"{len(listing.sources)} images, more than {job['most']} in one job"
                    )
                name = job["model"] or self._choose(listing.sources, models)
                if name not in models:
                    raise ScrdError(f"there is no model {name} any more")
                listed.append((job, listing, name))
            except Exception as error:
                self._fail(job["id"], error)
        for name in dict.fromkeys(name for _, _, name in listed):
            mine = [(job, listing) for job, listing, of in listed if of == name]
            scorer = self._scorers[models[name]["active"]]
            shadow = self._scorers.get(models[name].get("shadow", ""))
            sources = [source for _, listing in mine for source in listing.sources]
            results = scorer.score(sources, batch_size=self._batch_size)
            for i, (job, listing) in enumerate(mine):
                if self._channel.resting.is_set() and i:
                    self._channel.tell(say="back", job=job["id"])
                    continue
                try:
                    self._one(job, listing, name, scorer, results, shadow)
                except Exception as error:
                    self._fail(job["id"], error)
                    # the iterator may be anywhere
                    for other, _ in mine[i + 1 :]:
                        self._channel.tell(say="back", job=other["id"])
                    break

    def _choose(self, sources: Sequence[Source], models: Mapping[str, Mapping[str, str]]) -> str:
        """The model that knows most of some images, then the one with the fewest doubts."""
        if len(models) == 1:
            return next(iter(models))
        infos = []
        for source in even(sources, _SAMPLE):
            try:
                infos.append(read_info(source))
            except ImageError:
                continue

        def strange(name: str) -> tuple[int, int]:
            contract = self._scorers[models[name]["active"]].contract
            found = [contract.check(info) for info in infos]
            return sum(bool(refusals) for refusals, _ in found), sum(len(d) for _, d in found)

        return min(models, key=strange)

    def _one(
        self,
        job: Mapping[str, Any],
        listing: Listing,
        name: str,
        scorer: Scorer,
        results: Iterator[Result],
        shadow: Scorer | None,
    ) -> None:
        begun = time.perf_counter()
        work = self._store / "work" / job["id"]
        shutil.rmtree(work, ignore_errors=True)  # of a worker that died
        work.mkdir(mode=0o700)
        rows = self._rows(job, listing, scorer, results, work / "maps.npy")
        scored = time.perf_counter()
        trial: list[dict[str, Any]] = []
        if shadow is not None:
            again = shadow.score(listing.sources, batch_size=self._batch_size)
            trial = self._rows(job, listing, shadow, again, work / "shadow.npy")
        notes = []
        if listing.left_out:
            notes.append(f"{listing.left_out} DICOM files hold no image and were left out")
        if listing.copies:
            notes.append(f"{len(listing.copies)} files are copies and were used once")
        report = {
            "model": name,
            "fingerprint": scorer.fingerprint,
            "results": rows,
            "shadow": trial,
            "shadow_fingerprint": None if shadow is None else shadow.fingerprint,
            "notes": notes,
            "seconds": scored - begun,
        }
        with open(work / "report.json", "w", encoding="utf-8") as file:
            json.dump(report, file)
        self._channel.tell(say="done", job=job["id"])

    def _rows(
        self,
        job: Mapping[str, Any],
        listing: Listing,
        scorer: Scorer,
        results: Iterator[Result],
        maps: Path,
    ) -> list[dict[str, Any]]:
        """Rows of the table of results; maps are written as they come, and let go."""
        files = {self._store / "uploads" / job["id"] / str(i): i for i in range(len(job["names"]))}
        side, count = scorer.preprocessing.image_size, len(listing.sources)
        rows: list[dict[str, Any]] = []
        told = time.monotonic()
        places: dict[Source, int] = {}
        with open(maps, "wb") as file:
            _begin(file, (count, side, side))
            nothing = np.full((side, side), np.nan, np.float32)

            def pairs() -> Iterator[tuple[Source, Result]]:
                nonlocal told
                for place, source in enumerate(listing.sources):
                    result = next(results)
                    places[source] = place
                    if isinstance(result, ImageError):
                        file.write(nothing.tobytes())
                    else:
                        file.write(np.ascontiguousarray(result.input_map, np.float32).tobytes())
                        result = replace(result, input_map=_NO_MAP)
                    if source.series is None:
                        rows.append(picture_row(source, result, files[source.path], place))
                        rows[-1]["name"] = job["names"][files[source.path]]
                    if time.monotonic() - told > _TELL:
                        told = time.monotonic()
                        self._channel.tell(say="at", job=job["id"], done=place + 1, of=count)
                    yield source, result

            for study in collect(pairs(), scorer.calibration):
                for one in study.series:
                    first = one.series.sources[0]
                    window = _window(one, scorer)
                    row = series_row(study, one, files, places[first], _modality(first), window)
                    inside = {files[path] for path, _ in one.series.places}
                    row["name"] = _common([job["names"][i] for i in sorted(inside)])
                    rows.append(row)
        for failure in listing.failures:
            row = failure_row(failure, files[failure.path])
            row["name"] = job["names"][files[failure.path]]
            rows.append(row)
        return rows

    def _fail(self, job: str, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            self._channel.tell(say="back", job=job)
            return
        told = str(error) if isinstance(error, ScrdError) else where(error)
        self._channel.tell(say="failed", job=job, reason=told)


def _begin(file: BinaryIO, shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _window(one: SeriesResult, scorer: Scorer) -> tuple[float, float] | None:
    """What was measured over the series, where the model asks for that."""
    intensity = scorer.preprocessing.intensity
    if intensity.scope != "series" or one.verdict is None:
        return None
    return one.series.window(partial(measure_window, intensity=intensity))


def _modality(source: Source) -> str | None:
    try:
        return read_info(source).modality
    except ImageError:
        return None


def _common(names: Sequence[str]) -> str:
    """What the files of a series are called together: their folder, else the first and how many."""
    if len(names) == 1:
        return names[0]
    parents = [name.replace("\\", "/").split("/")[:-1] for name in names]
    shared = os.path.commonprefix(parents)
    if shared:
        return "/".join(shared)
    return f"{names[0]} and {len(names) - 1} more"


def main(store: str, device: str, batch_size: str, threads: str) -> None:
    """The process: ``python -m scrd.serve.worker STORE DEVICE BATCH_SIZE THREADS``."""
    channel = Channel()
    wait_politely()
    use_threads(int(threads) or None)
    Worker(channel, Path(store), device, int(batch_size)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
