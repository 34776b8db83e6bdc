"""Rank metrics of anomaly scores, and bootstrap intervals around them.

Every function takes ``scores``, shape (N,), any real range, higher meaning more abnormal, and
``labels``, shape (N,), 0 for normal and 1 for abnormal. Only the order of the scores counts: no
sigmoid, no clipping, no min-max scaling. An image is *flagged* when ``score >= threshold``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
Counts = NDArray[np.float64]

# resampled counts held in memory at once: 32 MB of float64
_CHUNK = 4_000_000


@dataclass(frozen=True)
class BestF1:
    """The largest F1 over all thresholds, and what goes with it.

    Attributes:
        f1: 2 TP / (2 TP + FP + FN), in [0, 1].
        threshold: the score at which it is reached (the highest one, if several).
        accuracy: share of images judged rightly at ``threshold``, in [0, 1].
    """

    f1: float
    threshold: float
    accuracy: float


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: P(abnormal > normal) + P(tie) / 2, the Mann-Whitney statistic.

    Args:
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal.

    Returns:
        A value in [0, 1]; 0.5 is chance.

    Raises:
        ValueError: NaN scores, labels other than 0 and 1, unequal lengths, or one class only.
    """
    _, abnormal, normal = _tally(*_both_classes(scores, labels))
    return float(auroc_from_counts(abnormal, normal))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Average precision, sum over thresholds of (recall step) x precision, not interpolated.

    Args:
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal.

    Returns:
        A value in [0, 1]; chance is the share of abnormal images.

    Raises:
        ValueError: as `auroc`.
    """
    _, abnormal, normal = _tally(*_both_classes(scores, labels))
    return float(average_precision_from_counts(abnormal, normal))


def best_f1(scores: ArrayLike, labels: ArrayLike) -> BestF1:
    """F1 at the threshold that makes it largest, as the anomaly detection papers report it.

    The threshold is chosen on the very labels that it is judged by, so F1 and accuracy are
    optimistic: they compare methods, they do not tell what a deployed threshold will do.

    Args:
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal.

    Returns:
        F1, threshold and accuracy.

    Raises:
        ValueError: as `auroc`.
    """
    thresholds, abnormal, normal = _tally(*_both_classes(scores, labels))
    true_alarms, false_alarms = np.cumsum(abnormal), np.cumsum(normal)
    # 2 TP + FP + FN = flagged + abnormal
    f1 = 2 * true_alarms / (true_alarms + false_alarms + true_alarms[-1])
    best = int(np.argmax(f1))
    right = true_alarms[best] + false_alarms[-1] - false_alarms[best]
    total = true_alarms[-1] + false_alarms[-1]
    return BestF1(float(f1[best]), float(thresholds[best]), float(right / total))


def roc_curve(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ROC curve, one point for each distinct score, from (0, 0) to (1, 1).

    Args:
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal.

    Returns:
        ``(false_alarm_rate, sensitivity)``, each of shape (distinct scores + 1,), in [0, 1],
        neither ever decreasing.

    Raises:
        ValueError: as `auroc`.
    """
    _, abnormal, normal = _tally(*_both_classes(scores, labels))
    return _rates(normal), _rates(abnormal)


def sensitivity_at_far(scores: ArrayLike, labels: ArrayLike, far: float) -> float:
    """The best sensitivity of any threshold whose false-alarm rate on these normals is <= far.

    Args:
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal.
        far: the false-alarm rate allowed, in [0, 1].

    Returns:
        Share of the abnormal images that are flagged, in [0, 1]. No interpolation between
        thresholds.

    Raises:
        ValueError: as `auroc`; ``far`` outside [0, 1].
    """
    if not 0 <= far <= 1:
        raise ValueError(f"far is a rate in [0, 1], not {far}")
    false_alarms, sensitivity = roc_curve(scores, labels)
    return float(sensitivity[false_alarms <= far].max())


def false_alarm_rate(scores: ArrayLike, labels: ArrayLike, threshold: float) -> float:
    """Share of the normal images with ``score >= threshold``, in [0, 1].

    Args:
        scores: shape (N,), any real range.
        labels: shape (N,), 0 normal, 1 abnormal; the abnormal ones are not looked at and may be
            absent.
        threshold: in the unit of the scores.

    Raises:
        ValueError: NaN scores or threshold, bad labels, unequal lengths, or no normal image.
    """
    values, positive = _checked(scores, labels)
    if np.isnan(threshold):
        raise ValueError("the threshold is NaN")
    if positive.all():
        raise ValueError("a false-alarm rate needs normal images, and there are none")
    return float(np.mean(values[~positive] >= threshold))


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
    """
    values, positive = _both_classes(scores, labels)
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


def auroc_from_counts(abnormal: Counts, normal: Counts) -> NDArray[np.float64]:
    """AUROC from counts instead of scores, for many resamples or for histograms at once.

    Args:
        abnormal: shape (..., V), count or weight of the abnormal ones at each distinct score,
            **highest score first**.
        normal: shape (..., V), the same of the normal ones.

    Returns:
        Shape (...), in [0, 1].
    """
    lower_or_tied = normal.sum(-1, keepdims=True) - np.cumsum(normal, -1) + normal / 2
    pairs = abnormal.sum(-1) * normal.sum(-1)
    return np.asarray((abnormal * lower_or_tied).sum(-1) / pairs)


def average_precision_from_counts(abnormal: Counts, normal: Counts) -> NDArray[np.float64]:
    """Average precision from counts; arguments and result as `auroc_from_counts`."""
    true_alarms = np.cumsum(abnormal, -1)
    flagged = true_alarms + np.cumsum(normal, -1)
    # a resample may hold none of the highest scores: nothing flagged, no recall step either
    precision = true_alarms / np.maximum(flagged, np.finfo(np.float64).tiny)
    return np.asarray((abnormal * precision).sum(-1) / true_alarms[..., -1])


_FROM_COUNTS: dict[Metric, Callable[[Counts, Counts], NDArray[np.float64]]] = {
    auroc: auroc_from_counts,
    average_precision: average_precision_from_counts,
}


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.asarray(scores, dtype=np.float64)
    given = np.asarray(labels)
    if values.ndim != 1 or values.shape != given.shape:
        raise ValueError(
            "scores and labels are two vectors of one length, "
            f"not of shapes {values.shape} and {given.shape}"
        )
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {values.size} scores are NaN")
    if not np.isin(given, (0, 1)).all():
        raise ValueError("labels are 0 (normal) or 1 (abnormal), nothing else")
    return values, given.astype(bool)


def _both_classes(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, positive = _checked(scores, labels)
    abnormal = int(positive.sum())
    if abnormal in (0, positive.size):
        raise ValueError(
            "both classes are needed, and there are "
            f"{positive.size - abnormal} normal and {abnormal} abnormal images"
        )
    return values, positive


def _tally(
    values: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], Counts, Counts]:
    """Distinct scores, highest first, with the counts of abnormal and normal images at each."""
    distinct, place = np.unique(values, return_inverse=True)
    abnormal = np.bincount(place[positive], minlength=distinct.size)
    normal = np.bincount(place[~positive], minlength=distinct.size)
    return distinct[::-1], abnormal[::-1].astype(np.float64), normal[::-1].astype(np.float64)


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


def _rates(counts: Counts) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])


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
