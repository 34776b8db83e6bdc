"""What normals teach a trained network: statistics, scale weights, and its calibration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scrd.calibration import Calibration, pool_normals, threshold_at
from scrd.config import Config
from scrd.model import SCRD
from scrd.model.acquisition import acquisition
from scrd.objectives import OBJECTIVES
from scrd.scoring import distances, infer, scale_excess
from scrd.training import STATISTICS_IMAGES, spread
from scrd.weighing import scale_weights

_BATCH = 16


def learn_normals(model: SCRD, images: Tensor, content: Tensor, config: Config) -> None:
    """Give a trained network what it must know of normals to score, from the training normals.

    That is the distance that is normal at each position, the excess that is normal for an image
    like it, and, where the objective wants it, the scale weights
    (:func:`scrd.weighing.scale_weights`).

    Args:
        model: trained, in eval mode; its ``normals``, ``expected`` and ``scale_head`` are set.
        images: (N, C, S, S), float32: the normals that trained it; some are used.
        content: (N, S, S), bool; False on letterbox padding.
        config: ``objective``, ``acquisition`` and ``seed`` are used.
    """
    some, inside = spread(images, STATISTICS_IMAGES), spread(content, STATISTICS_IMAGES)
    found = [[d.cpu() for d in distances(model, batch)[0]] for batch in torch.split(some, _BATCH)]
    model.normals.fit(found)
    device = next(model.parameters()).device
    parts = zip(found, torch.split(inside, _BATCH), strict=True)
    plain = [
        scale_excess(model, [d.to(device) for d in maps], area.to(device)).cpu()
        for maps, area in parts
    ]
    covariates = acquisition(some, inside)
    adjust = config.acquisition == "adjust" or config.acquisition == "auto" and images.shape[1] == 1
    model.expected.fit(torch.cat(plain), covariates, adjust)
    if not OBJECTIVES[config.objective].weighed:
        return

    def excess(probed: Tensor, area: Tensor) -> Tensor:
        batches = zip(torch.split(probed, _BATCH), torch.split(area, _BATCH), strict=True)
        return torch.cat([infer(model, *batch).excess for batch in batches])

    untouched = model.expected(torch.cat(plain), covariates)
    alpha = scale_weights(excess, some, inside, untouched, config.seed)
    model.scale_head.fix(alpha.to(device))


def calibrate(
    model: SCRD,
    images: Tensor,
    content: Tensor,
    *,
    groups: Sequence[str],
    series: Sequence[str],
    studies: Sequence[str],
    config: Config,
) -> Calibration:
    """Fix p-values and thresholds on held-out normals.

    Args:
        model: complete, in eval mode.
        images: (M, C, S, S), float32: normals that had no part in the model.
        content: (M, S, S), bool; False on letterbox padding.
        groups: group of each.
        series: series of each; an image alone is one by itself.
        studies: study of each.
        config: ``pooling`` and ``false_alarm_rate`` are used.
    """
    parts = [
        infer(model, batch, inside).statistics(inside)
        for batch, inside in zip(
            torch.split(images, _BATCH), torch.split(content, _BATCH), strict=True
        )
    ]
    statistics = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    scores = statistics[config.pooling].double().numpy()
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    ids = [numbers[group] for group in groups]
    threshold = threshold_at(scores, ids, config.false_alarm_rate)
    peaks = statistics["max"].double().numpy()
    map_threshold = min(threshold_at(peaks, ids, config.false_alarm_rate), float(peaks.max()))
    low = float(statistics["mean"].median())
    return Calibration(
        scores=tuple(scores.tolist()),
        groups=tuple(ids),
        false_alarm_rate=config.false_alarm_rate,
        threshold=threshold,
        map_threshold=map_threshold,
        # the threshold lies at two thirds of the colour scale
        map_scale=(low, low + 1.5 * max(map_threshold - low, 0.01)),
        pooling=config.pooling,
        series=pool_normals(scores, ids, series),
        study=pool_normals(scores, ids, studies),
    )
