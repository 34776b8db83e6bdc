"""What runs in the processes of a Ray cluster."""

from __future__ import annotations

import copyreg
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from scrd.cluster.bucket import fetched
from scrd.data.source import Series, Source
from scrd.errors import ImageError
from scrd.outputs.pictures import Outputs, why, write_pictures
from scrd.outputs.score_folder import Result
from scrd.scoring.scorer import Scorer

DEATHS = 3
"""How many workers may die at one image before it counts as one that cannot be scored."""

_NO_MAP = np.zeros((0, 0), np.float32)


def _of_fields(series: Series) -> tuple[type[Series], tuple[Any, ...]]:
    """For pickle, which cannot take the lock of a series to another process."""
    fields = (series.uid, series.study, series.patient, series.places, series.affine)
    return Series, (*fields, series.problems, series.format)


copyreg.pickle(Series, _of_fields)


@dataclass(frozen=True)
class Task:
    """Images that one worker scores: whole studies, so that their windows are those of the series.

    Attributes:
        start: position of the first among all images.
        sources: the images.
        names: of what is written about each; empty where nothing is.
    """

    start: int
    sources: tuple[Source, ...]
    names: tuple[Path, ...]


class Ledger:
    """Remembers, in a process of its own, at what workers died."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._now: dict[int, int] = {}
        self._deaths: dict[int, Counter[int]] = {}

    def begin(self, start: int) -> Counter[int] | None:
        """Take note that a task is begun.

        Args:
            start: of the task.

        Returns:
            None at its first and second time: workers die for many reasons. Then, by position in
            the task, how many died at an image.
        """
        self._begun[start] += 1
        if self._begun[start] <= 2:
            return None
        deaths = self._deaths.setdefault(start, Counter())
        if start in self._now:
            deaths[self._now.pop(start)] += 1
        return deaths

    def at(self, start: int, image: int) -> None:
        """Take note at which image of a task its worker is."""
        self._now[start] = image


class Worker:
    """A process of the cluster, with a detector of its own."""

    def __init__(
        self,
        load: Callable[[], Scorer],
        ledger: Any,
        folder: Path,
        outputs: Outputs,
        batch_size: int,
        any_kind: bool,
        directory: str,
    ) -> None:
        """Load the detector.

        Args:
            load: how.
            ledger: Ray's handle of a :class:`Ledger`.
            folder: where pictures are written.
            outputs: which ones.
            batch_size: images a batch.
            any_kind: see :meth:`scrd.scoring.scorer.Scorer.score`.
            directory: what relative paths are relative to, where it is there.
        """
        with suppress(OSError):
            os.chdir(directory)
        self._ledger = ledger
        self._folder = folder
        self._outputs = outputs
        self._batch_size = batch_size
        self._any_kind = any_kind
        self._failure = ""
        try:
            self._scorer = load()
        except Exception as error:
            # told with the first task: Ray would start the process again and again
            self._failure = f"{type(error).__name__}: {error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score a task.

        Args:
            row: ``task``, a pickled :class:`Task`.

        Returns:
            ``start`` of the task; ``results``, pickled, one for each source; ``failure``, why
            there are none, empty where all is well.
        """
        task: Task = pickle.loads(row["task"])  # noqa: S301 of the process that asked
        results: list[Result] = []
        failure = self._failure
        if not failure:
            try:
                with fetched(task.sources) as copies:
                    results = [self._finished(*one) for one in self._score(task, copies)]
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
        return {"start": task.start, "results": pickle.dumps(results), "failure": failure}

    def _score(
        self, task: Task, copies: Sequence[Source | ImageError]
    ) -> Iterator[tuple[Path | None, Result]]:
        """All images; one by one if the workers died that had the task before, to find out why."""
        import ray

        names: Iterable[Path | None] = task.names or repeat(None, len(copies))
        deaths = ray.get(self._ledger.begin.remote(task.start))
        if deaths is None:
            local = [copy for copy in copies if isinstance(copy, Source)]
            found = self._scorer.score(local, batch_size=self._batch_size, any_kind=self._any_kind)
            for name, copy in zip(names, copies, strict=True):
                yield name, next(found) if isinstance(copy, Source) else copy
            return
        for i, (name, copy) in enumerate(zip(names, copies, strict=True)):
            if isinstance(copy, Source) and deaths[i] >= DEATHS:
                copy = ImageError(copy.path, f"{DEATHS} processes died over it, one by one")
            if isinstance(copy, Source):
                ray.get(self._ledger.at.remote(task.start, i))
                (result,) = self._scorer.score([copy], any_kind=self._any_kind)
                yield name, result
            else:
                yield name, copy

    def _finished(self, name: Path | None, result: Result) -> Result:
        """Written about, without its series, and without its map unless a series needs it."""
        if isinstance(result, ImageError):
            return result
        if name is not None:
            try:
                write_pictures(self._scorer, result, self._folder, name, self._outputs)
            except Exception as error:  # one picture never stops the others
                doubt = f"its heat map or map was not written: {why(error)}"
                result = replace(result, doubts=(*result.doubts, doubt))
        source = result.source
        kept = source.series is not None and (self._outputs.raw_maps or self._outputs.kinds)
        return replace(
            result,
            source=Source(source.path, source.frame),
            input_map=result.input_map if kept else _NO_MAP,
        )
