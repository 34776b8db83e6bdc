"""From images to answers, whatever runs the network: PyTorch, ONNX Runtime, OpenVINO.

Nothing here imports PyTorch.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrd.data.cache import ImageStack, iter_batches
from scrd.data.contract import Contract
from scrd.data.covariates import Covariates
from scrd.data.preprocess import Preprocessing, content_masks, map_to_source
from scrd.data.source import AnySource, Source, as_source
from scrd.errors import ImageError
from scrd.scoring.calibration import Calibration
from scrd.scoring.part import part_of_series
from scrd.system.allocator import reused_memory
from scrd.system.progress import counting

_NO_MAP = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Scored:
    """The answer for one image.

    Attributes:
        source: the image.
        score: raw, larger is more anomalous; see :data:`scrd.model.scores.POOLINGS`.
        p_value: conformal, in (0, 1]: a normal image has one this small or smaller with at most
            this probability. None where no normals calibrated the detector.
        flag: the p-value is at most the chosen false-alarm rate; None where there is no p-value.
        statistics: the score under every pooling: ``areas`` and, of an objective with a student,
            ``excess``, both in standard deviations of normals (``excess_uniform``: with equal
            scale weights; ``excess_plain``: and not allowing for the image's acquisition);
            ``mean``, ``top`` and ``max`` of the anomaly map.
        scale_weights: α, one a map that makes the anomaly map, sum 1.
        input_map: anomaly map at the model's resolution, (S, S), float32, in standard deviations
            of normals, or, of an objective with a student, a distance in [0, 2]; (0, 0) where it
            was not asked for.
        source_size: (height, width) of the source image in pixels.
        doubts: what speaks against its being of the training images' kind.
        covariates: where it comes from; None where that was not measured.
    """

    source: Source
    score: float
    p_value: float | None
    flag: bool | None
    statistics: Mapping[str, float]
    scale_weights: tuple[float, ...]
    input_map: NDArray[np.float32]
    source_size: tuple[int, int]
    doubts: tuple[str, ...] = ()
    covariates: Covariates | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path


class Inferred(NamedTuple):
    """What a network says about a batch.

    Attributes:
        maps: anomaly maps, (B, S, S), float32; see :attr:`Scored.input_map`. (0, S, S) where they
            were not asked for.
        statistics: the score under every pooling, each (B,), float64.
        scale_weights: α, (B, K), float32, rows sum to 1.
    """

    maps: NDArray[np.float32]
    statistics: Mapping[str, NDArray[np.float64]]
    scale_weights: NDArray[np.float32]


class Scorer(ABC):
    """A calibrated anomaly detector that is ready to score.

    Attributes:
        preprocessing: how a source image becomes model input.
        calibration: what held-out normals said.
        contract: which images it knows; others are refused or doubted.
        fingerprint: SHA-256 of the saved model, in hexadecimal; None before it is saved.
        together: batches that it can work on at the same time.
    """

    preprocessing: Preprocessing
    calibration: Calibration
    contract: Contract
    fingerprint: str | None
    together: int = 1

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was made with and what runs it, to be written beside results; JSON types."""
        return {"model": self.fingerprint}

    @abstractmethod
    def infer(
        self, images: NDArray[np.float32], content: NDArray[np.bool_], *, maps: bool = True
    ) -> Inferred:
        """Run the network; may be called by ``together`` threads at once.

        Args:
            images: (B, C, S, S), C = 1 or 3, as :func:`scrd.data.preprocess.prepare` makes them.
            content: (B, S, S), False on letterbox padding.
            maps: whether the maps are wanted.
        """

    def score(
        self,
        images: AnySource | Sequence[AnySource],
        *,
        batch_size: int = 16,
        progress: bool = False,
        any_kind: bool = False,
        maps: bool = True,
        processes: int = 0,
    ) -> Iterator[Scored | ImageError]:
        """Score images.

        Where several batches can be worked on ``together``, the next ones are scored while
        results are used.

        Args:
            images: paths of files that hold one image each, arrays (see
                :func:`scrd.data.source.as_source`), or what
                :func:`scrd.data.series.list_sources` found; read ahead in threads, never all at
                once. One of these alone counts as a sequence of one.
            batch_size: images a batch.
            progress: show a progress bar on standard error.
            any_kind: score also what ``contract`` refuses, with the reason among its doubts.
            maps: whether the anomaly maps are wanted.
            processes: that read files instead of threads, see
                :func:`scrd.data.cache.iter_batches`.

        Yields:
            One result an image, in order: :class:`Scored`, or the :class:`ImageError` that says
            why it could not be read, or is not what the model knows.
        """
        if isinstance(images, str | os.PathLike | Source | np.ndarray):
            images = [images]
        files = [as_source(image, i) for i, image in enumerate(images)]
        batches = self.read(files, batch_size=batch_size, any_kind=any_kind, processes=processes)
        with counting("scoring", len(files), progress) as advance, reused_memory():
            for done, result in enumerate(self.answers(files, batches, maps=maps), 1):
                yield result
                if done % batch_size == 0 or done == len(files):
                    advance(done)

    def read(
        self,
        sources: Sequence[Source],
        *,
        batch_size: int = 16,
        any_kind: bool = False,
        processes: int = 0,
    ) -> Iterator[ImageStack]:
        """Read images for `answers`, as `score` does."""
        return iter_batches(
            sources,
            self.preprocessing,
            batch_size=batch_size,
            contract=self.contract,
            any_kind=any_kind,
            processes=processes,
        )

    def answers(
        self, sources: Sequence[Source], batches: Iterable[ImageStack], *, maps: bool = True
    ) -> Iterator[Scored | ImageError]:
        """Score images that are read.

        Args:
            sources: the images.
            batches: of `read`, that hold all of them in order.
            maps: whether the anomaly maps are wanted.

        Yields:
            One result an image, as `score` does.
        """
        done = 0
        for batch, found in self._ahead(batches, maps):
            results: dict[int, Scored | ImageError] = {}
            if found is not None:
                results.update(self._results(sources, batch, found))
            count = len(batch.index) + len(batch.failures)
            missing = [i for i in range(done, done + count) if i not in results]
            results.update(zip(missing, batch.failures, strict=True))
            for i in range(done, done + count):
                yield results[i]
            done += count

    def _ahead(
        self, batches: Iterable[ImageStack], maps: bool
    ) -> Iterator[tuple[ImageStack, Inferred | None]]:
        """Batches and what the network says, in order; a GPU works on the next ones meanwhile."""
        if self.together == 1:
            # in a thread, large tensors come from another heap than the one that is kept, which
            # costs a CPU a fifth
            for batch in batches:
                yield batch, self._infer_stack(batch, maps)
            return
        waiting: deque[tuple[ImageStack, Future[Inferred | None]]] = deque()
        pool = ThreadPoolExecutor(self.together, thread_name_prefix="scrd-infer")
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(self._infer_stack, batch, maps)))
                if len(waiting) > self.together:
                    first, found = waiting.popleft()
                    yield first, found.result()
            while waiting:
                first, found = waiting.popleft()
                yield first, found.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _infer_stack(self, batch: ImageStack, maps: bool) -> Inferred | None:
        if not batch.index:
            return None
        content = content_masks(batch.source_sizes, self.preprocessing)
        return self.infer(batch.images, content, maps=maps)

    def _results(
        self, sources: Sequence[Source], batch: ImageStack, found: Inferred
    ) -> Iterator[tuple[int, Scored]]:
        scores, calibrated = found.statistics[self.calibration.pooling], self.calibration.calibrated
        p_values = self.calibration.p_values(scores) if calibrated else None
        for row, i in enumerate(batch.index):
            source = sources[i]
            part = part_of_series(source, self.preprocessing.intensity, self.calibration.series)
            yield (
                i,
                Scored(
                    source=source,
                    score=float(scores[row]),
                    p_value=None if p_values is None else float(p_values[row]),
                    flag=bool(scores[row] >= self.calibration.threshold) if calibrated else None,
                    statistics={name: float(s[row]) for name, s in found.statistics.items()},
                    scale_weights=tuple(found.scale_weights[row].tolist()),
                    input_map=found.maps[row] if len(found.maps) else _NO_MAP,
                    source_size=batch.source_sizes[row],
                    doubts=(*batch.doubts[row], *part),
                    covariates=batch.covariates[row] if batch.covariates else None,
                ),
            )

    def source_map(self, scored: Scored) -> NDArray[np.float32]:
        """The anomaly map in the source image's geometry, (H, W), float32."""
        return map_to_source(scored.input_map, scored.source_size, self.preprocessing)
