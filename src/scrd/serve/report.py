"""What the worker leaves of a job: its maps, and what it found as rows of the table of results."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from scrd.data.prepared import measure_window
from scrd.data.reading import read_info
from scrd.data.series import Listing
from scrd.data.source import Source
from scrd.errors import ImageError
from scrd.scoring.scorer import Scorer
from scrd.scoring.verdicts import SeriesResult, collect
from scrd.serve.channel import Channel
from scrd.serve.records import Result, failure_row, picture_row, series_row

_TELL = 0.2  # seconds between two words on how far a job is
_NO_MAP = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Report:
    """What is left of a job.

    Attributes:
        channel: told how far it is, now and then.
        store: folder of the store.
        job: its name.
        names: what the client calls its files; file i lies in the job's uploads as ``i``.
        model: name of the one that answers.
        listing: what images there are.
    """

    channel: Channel
    store: Path
    job: str
    names: Sequence[str]
    model: str
    listing: Listing

    def write(
        self,
        scorer: Scorer,
        results: Iterator[Result],
        shadow: Scorer | None,
        batch_size: int,
        seconds: float,
    ) -> None:
        """Write maps, then ``report.json``.

        Args:
            scorer: the version that answers.
            results: its own, one an image of the listing.
            shadow: the version on trial, which scores the images too.
            batch_size: of that.
            seconds: that the results took before.
        """
        begun = time.perf_counter()
        work = self.store / "work" / self.job
        shutil.rmtree(work, ignore_errors=True)  # of a worker that died
        work.mkdir(mode=0o700)
        rows = self._rows(scorer, results, work / "maps.npy")
        scored = time.perf_counter()
        trial: list[dict[str, Any]] = []
        if shadow is not None:
            again = shadow.score(self.listing.sources, batch_size=batch_size)
            trial = self._rows(shadow, again, work / "shadow.npy")
        notes = []
        if self.listing.left_out:
            notes.append(f"{self.listing.left_out} DICOM files hold no image and were left out")
        if self.listing.copies:
            notes.append(f"{len(self.listing.copies)} files are copies and were used once")
        report = {
            "model": self.model,
            "fingerprint": scorer.fingerprint,
            "results": rows,
            "shadow": trial,
            "shadow_fingerprint": None if shadow is None else shadow.fingerprint,
            "notes": notes,
            "seconds": seconds + scored - begun,
        }
        with open(work / "report.json", "w", encoding="utf-8") as file:
            json.dump(report, file)

    def _rows(self, scorer: Scorer, results: Iterator[Result], maps: Path) -> list[dict[str, Any]]:
        """Rows of the table of results; maps are written as they come, and let go."""
        uploads = self.store / "uploads" / self.job
        files = {uploads / str(i): i for i in range(len(self.names))}
        sources = self.listing.sources
        side = scorer.preprocessing.image_size
        rows: list[dict[str, Any]] = []
        told = time.monotonic()
        places: dict[Source, int] = {}
        with open(maps, "wb") as file:
            _begin(file, (len(sources), side, side))
            nothing = np.full((side, side), np.nan, np.float32)

            def pairs() -> Iterator[tuple[Source, Result]]:
                nonlocal told
                for place, source in enumerate(sources):
                    result = next(results)
                    places[source] = place
                    if isinstance(result, ImageError):
                        file.write(nothing.tobytes())
                    else:
                        file.write(np.ascontiguousarray(result.input_map, np.float32).tobytes())
                        result = replace(result, input_map=_NO_MAP)
                    if source.series is None:
                        rows.append(picture_row(source, result, files[source.path], place))
                        rows[-1]["name"] = self.names[files[source.path]]
                    if time.monotonic() - told > _TELL:
                        told = time.monotonic()
                        self._tell(place + 1)
                    yield source, result

            for study in collect(pairs(), scorer.calibration):
                for one in study.series:
                    first = one.series.sources[0]
                    window = _window(one, scorer)
                    row = series_row(study, one, files, places[first], _modality(first), window)
                    inside = {files[path] for path, _ in one.series.places}
                    row["name"] = _common([self.names[i] for i in sorted(inside)])
                    rows.append(row)
        for failure in self.listing.failures:
            row = failure_row(failure, files[failure.path])
            row["name"] = self.names[files[failure.path]]
            rows.append(row)
        return rows

    def _tell(self, done: int) -> None:
        self.channel.tell(say="at", job=self.job, done=done, of=len(self.listing.sources))


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
