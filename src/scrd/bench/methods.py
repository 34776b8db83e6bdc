"""Objectives and baselines behind one face: train on the same images, answer with raw scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scrd import baselines
from scrd.baselines.method import Budget
from scrd.bench.suite import OWN, Run
from scrd.config import Config
from scrd.data.cache import ImageStack
from scrd.data.preprocess import content_masks
from scrd.data.sample import even_places
from scrd.data.source import Source
from scrd.detector import Detector
from scrd.model import SCRD
from scrd.model.areas import AreaScore
from scrd.model.constants import TOP_FRACTION
from scrd.model.scores import map_statistics
from scrd.model.teacher import build_teacher
from scrd.objectives import OBJECTIVES
from scrd.scoring.calibration import threshold_at
from scrd.scoring.promise import Promise, looks
from scrd.scoring.scorer import Scored
from scrd.system.progress import counting
from scrd.training.prepare import Prepared

BATCH = 16
"""Images that are scored together."""

AREA_IMAGES = 128
"""Training normals that tell what is normal for the areas of a baseline's map, at the most."""


@dataclass(frozen=True)
class Answers:
    """What a method says about N images.

    Attributes:
        scores: (N,), float64, raw, larger is more anomalous.
        statistics: pooling → (N,), float64, of the maps; ``own`` is the scores themselves.
        maps: (N, S, S), float32, on the CPU; None of a method that has none, and of more than one
            batch, see :meth:`Trained.answers`.
        scale_weights: (N, K), float; None for a method without them.
    """

    scores: NDArray[np.float64]
    statistics: Mapping[str, NDArray[np.float64]]
    maps: Tensor | None = None
    scale_weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Trained:
    """A method after training.

    Attributes:
        module: holds everything that it learnt or remembers.
        answer: one batch.
        thresholds: pooling → score from which on an image is flagged, calibrated for the
            false-alarm rate of the settings; empty where no normals were held out.
        by_image: the same, for a rate that is promised by image, where that of the settings is
            promised by group.
        pooling: the one that a detector uses; None for a baseline.
        fit_seconds: wall-clock time of building and training.
    """

    module: nn.Module
    answer: Callable[[ImageStack], Answers]
    thresholds: Mapping[str, float]
    pooling: str | None
    fit_seconds: float
    by_image: Mapping[str, float] = field(default_factory=dict)

    def warm_up(self, stack: ImageStack) -> None:
        """Score the first batch, which pays for what is set up once."""
        self.answer(next(_batches(stack)))

    def answers(
        self, stack: ImageStack, on_maps: Callable[[int, Tensor], None] | None = None
    ) -> Answers:
        """Score a stack of any size, batch by batch, without keeping maps.

        Args:
            stack: the images.
            on_maps: given each batch's maps, if there are any, and the position of its first
                image in the stack.
        """
        parts = []
        for i, batch in enumerate(_batches(stack)):
            part = self.answer(batch)
            if on_maps is not None and part.maps is not None:
                on_maps(i * BATCH, part.maps)
            parts.append(replace(part, maps=None))
        first = parts[0]
        return Answers(
            np.concatenate([p.scores for p in parts]),
            {n: np.concatenate([p.statistics[n] for p in parts]) for n in first.statistics},
            None,
            np.concatenate([p.scale_weights for p in parts if p.scale_weights is not None])
            if first.scale_weights is not None
            else None,
        )


def _batches(stack: ImageStack) -> Iterator[ImageStack]:
    for start in range(0, len(stack.index), BATCH):
        part = slice(start, start + BATCH)
        yield ImageStack(
            stack.images[part],
            stack.index[part],
            stack.source_sizes[part],
            (),
            stack.doubts[part],
        )


Watch = Callable[[int, SCRD], None]


def train_method(
    run: Run, prepared: Prepared, device: str, progress: bool = False, watch: Watch | None = None
) -> Trained:
    """Train an objective or a baseline on ``prepared.fitting`` and calibrate its thresholds.

    Every pooling gets its own from ``prepared.calibrating``, if anything was held out; a detector
    keeps the threshold that it has calibrated itself. ``watch`` sees the training of an objective,
    see :meth:`scrd.detector.Detector.fit`.
    """
    if run.method in OBJECTIVES:
        trained = _train_detector(run.config, prepared, device, progress, watch)
    else:
        with counting(f"training {run.method}", None, progress):
            trained = _train_baseline(run, prepared, device)
    if not prepared.calibrating.index:
        return trained
    with counting("calibrating every pooling", None, progress):
        normal = trained.answers(prepared.calibrating).statistics
    promise, far = run.config.promise, run.config.false_alarm_rate

    def thresholds(promise: Promise) -> dict[str, float]:
        seen = looks(prepared.groups, promise)
        return {n: threshold_at(scores, seen, far) for n, scores in normal.items()}

    return replace(
        trained,
        thresholds={**thresholds(promise), **trained.thresholds},
        by_image=thresholds("image") if promise == "group" else {},
    )


def _train_detector(
    config: Config, prepared: Prepared, device: str, progress: bool, watch: Watch | None
) -> Trained:
    detector = Detector.fit(prepared, config, device=device, progress=progress, watch=watch)

    def answer(stack: ImageStack) -> Answers:
        batch = replace(stack, index=tuple(range(len(stack.index))), failures=())
        sources = [Source(Path())] * len(batch.index)
        scored = [one for one in detector.answers(sources, [batch]) if isinstance(one, Scored)]
        scores = np.array([s.score for s in scored])
        pooled = {n: np.array([s.statistics[n] for s in scored]) for n in scored[0].statistics}
        maps = torch.from_numpy(np.stack([s.input_map for s in scored]))
        weights = np.array([s.scale_weights for s in scored])
        return Answers(scores, {OWN: scores, **pooled}, maps, weights)

    calibration, seconds = detector.calibration, detector.provenance["seconds"]
    own = {OWN: calibration.threshold} if calibration.calibrated else {}
    return Trained(detector.model, answer, own, calibration.pooling, seconds)


def require_weights(run: Run) -> None:
    """Build what a run needs before any image is read, and let it go.

    Raises:
        ScrdError: weights, files or packages are missing; the message says which.
    """
    config = run.config
    if run.method in OBJECTIVES:
        build_teacher(config.teacher, config.weights)
    else:
        baselines.BASELINES[run.method](_budget(config, "cpu"))


def _budget(config: Config, device: str) -> Budget:
    return Budget(
        teacher=config.teacher,
        weights=config.weights,
        image_size=config.image_size,
        iterations=config.iterations,
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
    )


def _train_baseline(run: Run, prepared: Prepared, device: str) -> Trained:
    config, settings = run.config, prepared.preprocessing
    started = time.perf_counter()
    baseline = baselines.BASELINES[run.method](_budget(config, device))
    images = torch.from_numpy(prepared.fitting.images)
    baseline.fit(images)
    seconds = time.perf_counter() - started
    areas = AreaScore()
    some = even_places(len(images), AREA_IMAGES)
    inside = torch.from_numpy(content_masks(prepared.fitting.source_sizes, settings))[some]
    maps = [baseline.score(batch)[1] for batch in torch.split(images[some], BATCH)]
    areas.fit(
        (found, content)
        for found, content in zip(maps, torch.split(inside, BATCH), strict=True)
        if found is not None
    )

    def answer(stack: ImageStack) -> Answers:
        scores, maps = baseline.score(torch.from_numpy(stack.images))
        own = scores.double().numpy()
        pooled = {OWN: own}
        if maps is not None:
            content = torch.from_numpy(content_masks(stack.source_sizes, settings))
            statistics = map_statistics(maps, content, TOP_FRACTION)
            statistics["areas"] = areas(maps, content)
            pooled |= {name: s.double().numpy() for name, s in statistics.items()}
        return Answers(own, pooled, maps)

    return Trained(baseline, answer, {}, None, seconds)
