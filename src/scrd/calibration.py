"""P-values and thresholds from held-out normals, and the choice of pooling without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scrd.config import Config
from scrd.metrics import auroc
from scrd.model import SCRD
from scrd.scoring import POOLINGS, infer, log_statistics, map_statistics, pool
from scrd.synthesis.probes import PROBES

Floats = NDArray[np.float64]
Images = tuple[Tensor, Tensor]
"""Prepared images (N, C, S, S), float32, and where they are not padding, (N, S, S), bool."""

PROBED = 128
"""Selection normals that are probed, at the most."""
_BATCH = 16


@dataclass(frozen=True)
class Calibration:
    """What held-out normals say about a score.

    Attributes:
        scores: scores of the calibration normals, any order.
        groups: the group (patient, lesion, near-copy cluster) of each, as running numbers.
        false_alarm_rate: the rate that ``threshold`` is chosen for, in (0, 1).
        threshold: flag a score that is at least this; infinite when there are too few groups
            for the rate.
        map_threshold: mark pixels of an anomaly map above this; the calibration normals'
            maxima exceed it in ``false_alarm_rate`` of the images.
        map_scale: (low, high) of the common colour scale of heat maps.
        pooling: the pooling in use.
        pool_statistics: see :data:`scrd.scoring.PoolStatistics`.
        separability: pooling → probe → AUROC of probed against untouched selection normals, the
            evidence for the choice; empty if the pooling was given.
    """

    scores: tuple[float, ...]
    groups: tuple[int, ...]
    false_alarm_rate: float
    threshold: float
    map_threshold: float
    map_scale: tuple[float, float]
    pooling: str
    pool_statistics: Mapping[str, tuple[float, float]]
    separability: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def p_values(self, scores: ArrayLike) -> Floats:
        """See :func:`p_values`."""
        return p_values(scores, self.scores, self.groups)


def p_values(scores: ArrayLike, normals: ArrayLike, groups: Sequence[int]) -> Floats:
    """Conformal p-values of scores, from normals that come in groups.

    p(s) = (1 + (G / M) · #{i : s_i ≥ s}) / (G + 1), M normals in G groups.

    With one image a group this is the split-conformal p-value (Vovk et al. 2005), and for a new
    normal image from where the calibration normals come from P(p ≤ t) ≤ t for every t. Images of
    one group are alike, so M images are no more than G independent looks at normality: the group
    of the new image is the (G + 1)th, and counts with the mean group size M / G. The promise is
    exact for groups of one size. Where sizes differ it holds per *image*, as false alarms are
    counted in practice, up to an error that vanishes with more groups.

    Args:
        scores: (N,), float, any range.
        normals: (M,), float, scores of the calibration normals.
        groups: (M,), group of each.

    Returns:
        (N,), float64, in [1 / (G + 1), 1].

    Raises:
        ValueError: no normals, NaN, or lengths that differ.
    """
    s = np.atleast_1d(np.asarray(scores, dtype=np.float64))
    values, steps = _steps(normals, groups)
    if np.isnan(s).any():
        raise ValueError("a score is NaN")
    return steps[np.searchsorted(values, s, side="left")]


def _steps(normals: ArrayLike, groups: Sequence[int]) -> tuple[Floats, Floats]:
    """Sorted scores (M,), and (M + 1,) the p-value of a score with i of them below it."""
    values = np.asarray(normals, dtype=np.float64)
    ids = np.asarray(groups)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError("calibration needs at least one normal score")
    if len(ids) != len(values):
        raise ValueError(f"{len(values)} scores, but {len(ids)} groups")
    if np.isnan(values).any():
        raise ValueError("a calibration score is NaN")
    count = len(np.unique(ids))
    above = np.arange(len(values), -1, -1)
    # (1 + G) / (G + 1) is 1, also in binary, if the whole numbers are multiplied first
    return np.sort(values), (1 + above * count / len(values)) / (count + 1)


def threshold_at(normals: ArrayLike, groups: Sequence[int], false_alarm_rate: float) -> float:
    """The smallest score whose p-value is at most ``false_alarm_rate``.

    Returns:
        t, such that ``score >= t`` exactly when ``p(score) <= false_alarm_rate``; infinity when
        there are fewer than ``1 / false_alarm_rate - 1`` groups.
    """
    values, steps = _steps(normals, groups)
    small = steps <= false_alarm_rate
    if not small[-1]:
        return float("inf")
    # steps[0] is 1, so at least one normal lies below the threshold
    return float(np.nextafter(values[int(np.argmax(small)) - 1], np.inf))


def choose_pooling(
    separability: Mapping[str, Mapping[str, float]], extents: Mapping[str, str]
) -> str:
    """Pick the pooling that best tells probed from untouched held-out normals.

    An abnormality may be a spot or a change of the whole image, and nothing in the normals says
    which: focal and diffuse probes get half of the say each, whatever their number.

    Args:
        separability: pooling → probe → AUROC in [0, 1].
        extents: probe → ``focal`` or ``diffuse``.

    Returns:
        The pooling with the largest mean of the two; the first in order on a tie.
    """

    def merit(by_probe: Mapping[str, float]) -> float:
        kinds = sorted(set(extents[p] for p in by_probe))
        return float(
            np.mean([np.mean([v for p, v in by_probe.items() if extents[p] == k]) for k in kinds])
        )

    return max(separability, key=lambda pooling: merit(separability[pooling]))


def calibrate(
    model: SCRD, *, selection: Images, calibrating: Images, groups: Sequence[str], config: Config
) -> Calibration:
    """Fix pooling, p-values and thresholds from two disjoint parts of the held-out normals.

    The pooling is settled on ``selection`` before ``calibrating`` is looked at, so that the
    p-values stay exact.

    Args:
        model: trained, in eval mode.
        selection: normals that give the statistics of ``fused`` and choose the pooling.
        calibrating: normals that give p-values and thresholds.
        groups: group of each calibrating normal.
        config: ``pooling``, ``false_alarm_rate`` and ``seed`` are used.
    """
    selected = _statistics(model, *selection)
    normals = log_statistics(selected)
    separability: dict[str, dict[str, float]] = {}
    pooling: str = config.pooling
    if pooling == "auto":
        separability = _separability(model, selection, normals, config.seed)
        extents = {name: str(probe.extent) for name, probe in PROBES.items()}
        pooling = choose_pooling(separability, extents)
    statistics = _statistics(model, *calibrating)
    scores = pool(statistics, pooling, normals).double().numpy()
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
        pooling=pooling,
        pool_statistics=normals,
        separability=separability,
    )


def _statistics(model: SCRD, images: Tensor, content: Tensor) -> dict[str, Tensor]:
    parts = [
        map_statistics(infer(model, images[i : i + _BATCH])[0], content[i : i + _BATCH])
        for i in range(0, len(images), _BATCH)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _separability(
    model: SCRD,
    selection: Images,
    normals: Mapping[str, tuple[float, float]],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Pooling → probe → AUROC of probed against untouched selection normals."""
    images, content = (part[:PROBED] for part in selection)
    images = images.clamp(0, 1)  # as probes do, which must not be told by the clamping alone
    untouched = _statistics(model, images, content)
    table: dict[str, dict[str, float]] = {pooling: {} for pooling in POOLINGS}
    for name, probe in PROBES.items():
        generator = torch.Generator().manual_seed(seed)
        changed = [
            probe(images[i : i + _BATCH].expand(-1, 3, -1, -1), generator)
            for i in range(0, len(images), _BATCH)
        ]
        probed = _statistics(model, torch.cat(changed), content)
        for pooling in POOLINGS:
            before, after = pool(untouched, pooling, normals), pool(probed, pooling, normals)
            labels = [0] * len(before) + [1] * len(after)
            table[pooling][name] = auroc(torch.cat([before, after]).numpy(), labels)
    return table
