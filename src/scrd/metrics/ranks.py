"""Rank metrics of anomaly scores.

Every function takes ``scores``, shape (N,), any real range, higher meaning more abnormal, and
``labels``, shape (N,), 0 for normal and 1 for abnormal. Only the order of the scores counts: no
sigmoid, no clipping, no min-max scaling. An image is *flagged* when ``score >= threshold``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
Counts = NDArray[np.float64]


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

    Example:
        >>> auroc([100, 101, 102, 103], [0, 0, 1, 1])  # only the order counts
        1.0
        >>> auroc([1, 2, 2, 3], [0, 0, 1, 1])  # a tie counts one half
        0.875
    """
    _, abnormal, normal = _tally(*both_classes(scores, labels))
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
    _, abnormal, normal = _tally(*both_classes(scores, labels))
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
    thresholds, abnormal, normal = _tally(*both_classes(scores, labels))
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
    _, abnormal, normal = _tally(*both_classes(scores, labels))
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

    Example:
        >>> sensitivity_at_far([1, 2, 3, 4, 5], [0, 0, 1, 0, 1], far=0.0)
        0.5
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


def both_classes(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and labels as (N,) float64 and (N,) bool, once both classes are known to be there.

    Raises:
        ValueError: as `auroc`.
    """
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


def _rates(counts: Counts) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
