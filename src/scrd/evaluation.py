"""Figures of a scored test set: what ``metrics.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.data.manifest import Record
from scrd.metrics import (
    auroc,
    average_precision,
    best_f1,
    bootstrap_interval,
    false_alarm_rate,
    sensitivity_at_far,
)

_MOST_STRATA = 6


def evaluate_scores(
    records: Sequence[Record],
    scores: NDArray[np.float64],
    statistics: Mapping[str, NDArray[np.float64]],
    *,
    threshold: float,
    far: float,
) -> dict[str, Any]:
    """Compute the figures that the labels and groups of a test set allow.

    Args:
        records: the N scored images.
        scores: (N,), float64, raw.
        statistics: pooling → (N,) scores under that pooling, reported side by side; the detector
            uses the one that was fixed without labels.
        threshold: the calibrated one; an image is flagged when its score is at least this.
        far: the false-alarm rate that the threshold was chosen for.

    Returns:
        Always ``n_normal``, ``n_abnormal``. With normal images ``false_alarm_rate``, with
        abnormal ones ``sensitivity`` (both at ``threshold``). With both ``auroc``, ``ap`` and
        their ``_ci95`` (clustered by group where known), ``f1`` and ``acc`` at the best-F1
        threshold, ``sensitivity_at_far``, ``auroc_by_pooling``, ``by_class`` and ``within``
        (AUROC inside each value of a manifest column, against confounding). Rates in [0, 1].
    """
    labels = np.array([r.label for r in records])
    groups = [r.group for r in records]
    abnormal = labels == 1
    metrics: dict[str, Any] = {
        "n_normal": int((~abnormal).sum()),
        "n_abnormal": int(abnormal.sum()),
        "far": far,
        "threshold": threshold,
    }
    if (~abnormal).any():
        metrics["false_alarm_rate"] = false_alarm_rate(scores, labels, threshold)
    if abnormal.any():
        metrics["sensitivity"] = float((scores[abnormal] >= threshold).mean())
    if abnormal.all() or not abnormal.any():
        return metrics
    best = best_f1(scores, labels)
    return {
        "auroc": auroc(scores, labels),
        "auroc_ci95": bootstrap_interval(auroc, scores, labels, groups=groups),
        "ap": average_precision(scores, labels),
        "ap_ci95": bootstrap_interval(average_precision, scores, labels, groups=groups),
        "f1": best.f1,
        "acc": best.accuracy,
        "sensitivity_at_far": sensitivity_at_far(scores, labels, far),
        **metrics,
        "auroc_by_pooling": {name: auroc(s, labels) for name, s in statistics.items()},
        "by_class": _by_class(records, scores, abnormal),
        "within": _within(records, scores, labels),
    }


def _by_class(
    records: Sequence[Record], scores: NDArray[np.float64], abnormal: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Each abnormal class against all normals."""
    kinds = np.array([r.kind for r in records])
    table = {}
    for kind in sorted(set(kinds[abnormal])):
        chosen = ~abnormal | (kinds == kind) & abnormal
        table[str(kind)] = {
            "auroc": auroc(scores[chosen], abnormal[chosen].astype(int)),
            "n": int((abnormal & (kinds == kind)).sum()),
        }
    return table


def _within(
    records: Sequence[Record], scores: NDArray[np.float64], labels: NDArray[np.int_]
) -> dict[str, dict[str, dict[str, float]]]:
    """AUROC among the images that share a value of a manifest column, such as the view."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    columns = sorted({name for r in records for name in r.attributes})
    for column in columns:
        values = np.array([r.attributes.get(column, "") for r in records])
        distinct = sorted(set(values) - {""})
        if not 2 <= len(distinct) <= _MOST_STRATA:
            continue
        strata = {}
        for value in distinct:
            chosen = values == value
            n_abnormal = int(labels[chosen].sum())
            n_normal = int(chosen.sum()) - n_abnormal
            if n_abnormal and n_normal:
                strata[str(value)] = {
                    "auroc": auroc(scores[chosen], labels[chosen]),
                    "n_normal": n_normal,
                    "n_abnormal": n_abnormal,
                }
        if strata:
            table[column] = strata
    return table
