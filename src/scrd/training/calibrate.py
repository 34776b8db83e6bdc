"""P-values and thresholds from held-out normals; without such, a colour scale alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scrd.config import Config
from scrd.data.covariates import acquisition
from scrd.model import SCRD
from scrd.model.scores import infer
from scrd.scoring.calibration import (
    MANY,
    POOLED_SHARE,
    Acquisition,
    Calibration,
    pool_normals,
    threshold_at,
)
from scrd.scoring.promise import looks
from scrd.system.progress import counting
from scrd.training.setup import spread

SCALED = 128
"""Training normals that give the colour scale where none are held out, at the most."""

_BATCH = 16


def calibrate(
    model: SCRD,
    images: Tensor,
    content: Tensor,
    *,
    groups: Sequence[str],
    series: Sequence[str],
    studies: Sequence[str],
    config: Config,
    progress: bool = False,
) -> Calibration:
    """Fix p-values and thresholds on held-out normals.

    Args:
        model: complete, in eval mode.
        images: (M, C, S, S), float32: normals that had no part in the model.
        content: (M, S, S), bool; False on letterbox padding.
        groups: group of each.
        series: series of each; an image alone is one by itself.
        studies: study of each.
        config: ``pooling``, ``false_alarm_rate`` and ``promise`` are used.
        progress: tell on standard error how far the work is.
    """
    parts, numbers = [], []
    batches = zip(torch.split(images, _BATCH), torch.split(content, _BATCH), strict=True)
    with counting("calibrating", len(images), progress) as advance:
        for done, (batch, inside) in enumerate(batches, start=1):
            parts.append(infer(model, batch, inside).statistics)
            numbers.append(acquisition(batch.numpy(), inside.numpy()))
            advance(min(done * _BATCH, len(images)))
    statistics = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    scores = statistics[config.pooling].double().numpy()
    ids, seen = looks(groups, "group"), looks(groups, config.promise)
    threshold = threshold_at(scores, seen, config.false_alarm_rate)
    peaks = statistics["max"].double().numpy()
    map_threshold = min(threshold_at(peaks, seen, config.false_alarm_rate), float(peaks.max()))
    low = float(statistics["mean"].median())
    return Calibration(
        scores=tuple(scores.tolist()),
        groups=tuple(ids),
        false_alarm_rate=config.false_alarm_rate,
        threshold=threshold,
        map_threshold=map_threshold,
        map_scale=_scale(low, map_threshold),
        pooling=config.pooling,
        series=pool_normals(scores, ids, series),
        study=pool_normals(scores, ids, studies),
        pooled_share=POOLED_SHARE,
        many=MANY,
        promise=config.promise,
        acquisition=Acquisition(*(tuple(n) for n in np.concatenate(numbers).T.tolist())),
    )


def uncalibrated(
    model: SCRD, images: Tensor, content: Tensor, config: Config, *, progress: bool = False
) -> Calibration:
    """What is known of scores where no normals were held out: nothing but a colour scale.

    Its upper end has no promise: maxima of the maps of training normals, which the model has
    learnt, take the place of those of held-out ones.

    Args:
        model: complete, in eval mode.
        images: (N, C, S, S), float32: the normals that trained it; some are used.
        content: (N, S, S), bool; False on letterbox padding.
        config: ``pooling``, ``false_alarm_rate`` and ``promise`` are used.
        progress: tell on standard error how far the work is.
    """
    some, inside = spread(images, SCALED), spread(content, SCALED)
    means, peaks = [], []
    batches = zip(torch.split(some, _BATCH), torch.split(inside, _BATCH), strict=True)
    with counting("finding the colour scale", len(some), progress) as advance:
        for done, batch in enumerate(batches, start=1):
            found = infer(model, *batch).statistics
            means.append(found["mean"])
            peaks.append(found["max"])
            advance(min(done * _BATCH, len(some)))
    low = float(torch.cat(means).median())
    high = float(torch.cat(peaks).double().quantile(1 - config.false_alarm_rate))
    return Calibration(
        scores=(),
        groups=(),
        false_alarm_rate=config.false_alarm_rate,
        threshold=math.inf,
        map_threshold=math.inf,
        map_scale=_scale(low, high),
        pooling=config.pooling,
        pooled_share=POOLED_SHARE,
        many=MANY,
        promise=config.promise,
    )


def _scale(low: float, threshold: float) -> tuple[float, float]:
    """The colour scale, two thirds of which lie below the threshold."""
    return low, low + 1.5 * max(threshold - low, 0.01)
