"""Bootstrap intervals around rank metrics, by group where images come in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scrd.metrics.ranks import (
    Counts,
    Metric,
    auroc,
    auroc_from_counts,
    average_precision,
    average_precision_from_counts,
    both_classes,
)

# resampled counts held in memory at once: 32 MB of float64
_CHUNK = 4_000_000


def bootstrap_interval(
    metric: Metric,
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    groups: Sequence[str | None] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric (Efron & Tibshirani 1993, chapter 13).

    Without groups, normal and abnormal images are drawn with replacement separately, as many of
    each as there are. With groups (patients, say), whole groups are drawn, every image of a drawn
    group coming along: the groups fall into three strata (only normal images, only abnormal ones,
    both), and from each stratum as many groups are drawn as it has. Hence no resample lacks a
    class, while the number of images may differ from one to the next.

    Two limits of the method: a perfect ranking gives the interval [1, 1], and below about 20
    groups in a stratum the interval is too narrow (with a single group it does not vary at all).

    Args:
        metric: ``metric(scores, labels) -> float``; labels are passed as booleans. `auroc` and
            `average_precision` are computed for all resamples at once.
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal.
        groups: N group names; None for an image of unknown group, which is its own group.
        resamples: number of resamples.
        level: coverage aimed at, in (0, 1).
        seed: of the resampling.

    Returns:
        ``(low, high)``, in the unit of the metric.

    Raises:
        ValueError: as `auroc`; ``groups`` of another length; a level outside (0, 1); fewer than
            one resample.

    Example:
        >>> bootstrap_interval(auroc, [1, 2, 3, 4], [0, 0, 1, 1])  # a perfect ranking
        (1.0, 1.0)
    """
    values, positive = both_classes(scores, labels)
    if not 0 < level < 1:
        raise ValueError(f"level lies in (0, 1), not {level}")
    if resamples < 1:
        raise ValueError(f"at least one resample is needed, not {resamples}")
    strata = _strata(positive, groups)
    rng = np.random.default_rng(seed)
    chunks = _resampled(strata, values.size, resamples, rng)
    from_counts = _FROM_COUNTS.get(metric)
    if from_counts is None:
        drawn = (
            np.repeat(np.arange(values.size), times.astype(np.intp))
            for chunk in chunks
            for times in chunk
        )
        estimates = np.array([metric(values[index], positive[index]) for index in drawn])
    else:
        estimates = np.concatenate(
            [from_counts(*_weighted_tally(values, positive, chunk)) for chunk in chunks]
        )
    tail = (1 - level) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


_FROM_COUNTS: dict[Metric, Callable[[Counts, Counts], NDArray[np.float64]]] = {
    auroc: auroc_from_counts,
    average_precision: average_precision_from_counts,
}


def _weighted_tally(
    values: NDArray[np.float64], positive: NDArray[np.bool_], times: Counts
) -> tuple[Counts, Counts]:
    """The counts of `_tally` for each row of ``times``, shape (R, N): how often image n counts."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    first_of_value = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    times = times[:, order]
    abnormal = np.add.reduceat(times * positive[order], first_of_value, axis=1)
    normal = np.add.reduceat(times * ~positive[order], first_of_value, axis=1)
    return abnormal, normal


def _strata(
    positive: NDArray[np.bool_], groups: Sequence[str | None] | None
) -> list[NDArray[np.intp]]:
    """For each stratum the group number of every image, -1 for images outside the stratum."""
    if groups is None:
        groups = [None] * positive.size
    if len(groups) != positive.size:
        raise ValueError(f"{len(groups)} groups for {positive.size} scores")
    numbers: dict[str | int, int] = {}
    # an int can never equal a group's name, so an image without a group stays alone
    group = np.array(
        [
            numbers.setdefault(i if name is None else name, len(numbers))
            for i, name in enumerate(groups)
        ]
    )
    has_abnormal = np.bincount(group, weights=positive) > 0
    has_normal = np.bincount(group, weights=~positive) > 0
    strata = []
    for members in (~has_abnormal, ~has_normal, has_abnormal & has_normal):
        if members.any():
            renumbered = np.where(members, np.cumsum(members) - 1, -1)
            strata.append(renumbered[group])
    return strata


def _resampled(
    strata: list[NDArray[np.intp]], images: int, resamples: int, rng: np.random.Generator
) -> Iterator[Counts]:
    """How often each image counts in each resample, in chunks of shape (r, images)."""
    rows = max(1, _CHUNK // images)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        times = np.zeros((count, images))
        for group in strata:
            inside = group >= 0
            size = int(group.max()) + 1
            drawn = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
            group_times = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
            times[:, inside] = group_times[:, group[inside]]
        yield times
