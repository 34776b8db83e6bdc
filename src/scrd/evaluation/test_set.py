"""Scoring a test set against its labels: what ``metrics.json`` holds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.audit.confounds import confound_table, scalars
from scrd.data.manifest import Manifest, read_manifest
from scrd.data.reading import read_image
from scrd.data.record import Record
from scrd.data.tables import GROUPING
from scrd.errors import ImageError, ManifestError
from scrd.evaluation.localise import localise
from scrd.metrics.bootstrap import bootstrap_interval
from scrd.metrics.ranks import (
    auroc,
    average_precision,
    best_f1,
    false_alarm_rate,
    sensitivity_at_far,
)
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Scored, Scorer
from scrd.scoring.verdicts import judge
from scrd.system.progress import counting

_MOST_STRATA = 6


def evaluate_scores(
    records: Sequence[Record],
    scores: NDArray[np.float64],
    statistics: Mapping[str, NDArray[np.float64]],
    *,
    threshold: float | None,
    far: float,
) -> dict[str, Any]:
    """Compute the figures that the labels and groups of a test set allow.

    Args:
        records: the N scored images.
        scores: (N,), float64, raw.
        statistics: pooling → (N,) scores under that pooling, reported side by side; the detector
            uses the one that was fixed without labels.
        threshold: the calibrated one; an image is flagged when its score is at least this. None
            where no normals were held out.
        far: the false-alarm rate that the threshold was chosen for.

    Returns:
        Always ``n_normal``, ``n_abnormal``. With normal images ``false_alarm_rate``, with
        abnormal ones ``sensitivity`` (both at ``threshold``, if there is one). With both
        ``auroc``, ``ap`` and their ``_ci95`` (clustered by group where known), ``f1`` and ``acc``
        at the best-F1 threshold, ``sensitivity_at_far``, ``auroc_by_pooling``, ``by_class`` and
        ``within`` (AUROC inside each value of a manifest column, against confounding). Rates in
        [0, 1].
    """
    labels = np.array([r.label for r in records])
    groups = [r.group for r in records]
    abnormal = labels == 1
    metrics: dict[str, Any] = {
        "n_normal": int((~abnormal).sum()),
        "n_abnormal": int(abnormal.sum()),
        "far": far,
        "threshold": None if threshold is None or math.isinf(threshold) else threshold,
    }
    if threshold is not None and (~abnormal).any():
        metrics["false_alarm_rate"] = false_alarm_rate(scores, labels, threshold)
    if threshold is not None and abnormal.any():
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
    columns = sorted({name for r in records for name in r.attributes} - {*GROUPING, "series"})
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


@dataclass(frozen=True)
class Evaluation:
    """A scored test set.

    Attributes:
        records: the N readable test images.
        scored: their results, in the same order.
        failures: the test images that could not be read, and the masks or boxes that cannot be
            used, whose images are scored all the same.
        failed: the records of the M test images that could not be read; their errors are the
            first M failures.
        metrics: the content of ``metrics.json``; see :func:`evaluate_scores` for the figures
            from scores, :func:`level_metrics` for ``series`` and ``study``, and beside them
            ``localisation``, ``confounds``, ``n_failed``, ``n_doubted``, ``can_flag``,
            ``warnings``, ``seconds_per_image``, ``pooling`` and ``settings``.
        doubts: about masks and boxes that are used.
    """

    records: tuple[Record, ...]
    scored: tuple[Scored, ...]
    failures: tuple[ImageError, ...]
    failed: tuple[Record, ...]
    metrics: Mapping[str, Any]
    doubts: tuple[ImageError, ...] = ()


def evaluate(
    detector: Scorer,
    data: str | Path | Manifest,
    *,
    batch_size: int = 16,
    progress: bool = False,
) -> Evaluation:
    """Score the test split of a data set against its labels.

    Nothing of the detector changes: threshold and pooling are those fixed at training time.

    Args:
        detector: trained.
        data: folder or manifest with a test split, or what `read_manifest` made of one.
        batch_size: images a batch.
        progress: show a progress bar on standard error.

    Raises:
        ManifestError: the data set is not described well, or has no test split.
        ImageError: no test image can be read; the error is that of the first.
    """
    manifest = data if isinstance(data, Manifest) else read_manifest(data)
    if not manifest.test:
        raise ManifestError(manifest.root, f"no image in the split 'test' ({manifest.counts})")
    started = time.perf_counter()
    results = list(
        detector.score([r.source for r in manifest.test], batch_size=batch_size, progress=progress)
    )
    seconds = time.perf_counter() - started
    pairs = [
        (record, result)
        for record, result in zip(manifest.test, results, strict=True)
        if isinstance(result, Scored)
    ]
    unread = [
        (record, result)
        for record, result in zip(manifest.test, results, strict=True)
        if isinstance(result, ImageError)
    ]
    failed = tuple(record for record, _ in unread)
    failures = tuple(error for _, error in unread)
    if not pairs:
        raise failures[0]
    records, scored = (tuple(column) for column in zip(*pairs, strict=True))
    calibration = detector.calibration
    with counting("computing figures", None, progress):
        metrics = evaluate_scores(
            records,
            np.array([s.score for s in scored]),
            {name: np.array([s.statistics[name] for s in scored]) for name in scored[0].statistics},
            threshold=calibration.threshold if calibration.calibrated else None,
            far=calibration.false_alarm_rate,
        )
    metrics |= {
        "n_failed": len(failures),
        "n_doubted": sum(bool(s.doubts) for s in scored),
        "can_flag": calibration.can_flag,
        "warnings": [calibration.silence] if calibration.silence else [],
        "seconds_per_image": seconds / len(results),
        "pooling": calibration.pooling,
        "scale_weights": np.mean([s.scale_weights for s in scored], axis=0).tolist(),
        **level_metrics(records, scored, calibration),
    }
    with counting("comparing maps with lesions", None, progress):
        marks = localise(
            records, [s.source_size for s in scored], lambda i: detector.source_map(scored[i])
        )
    if marks.figures:
        metrics["localisation"] = marks.figures
    failures += marks.failures
    if metrics["n_normal"] and metrics["n_abnormal"]:
        with counting("comparing with plain numbers", None, progress):
            metrics["confounds"] = _confounds(records)
    metrics["settings"] = {
        "data": manifest.root.name,
        "data_fingerprint": manifest.fingerprint,
        **detector.settings,
    }
    return Evaluation(records, scored, failures, failed, metrics, marks.doubts)


def level_metrics(
    records: Sequence[Record], scored: Sequence[Scored], calibration: Calibration
) -> dict[str, dict[str, Any]]:
    """The figures for whole series and studies.

    A series is abnormal when one of its images is.

    Args:
        records: the N scored images.
        scored: their results.
        calibration: of the detector.

    Returns:
        For ``series`` and ``study``, where several images share one: ``n_normal``,
        ``n_abnormal``, ``calibrated`` (share of the verdicts that are, see
        :class:`scrd.scoring.verdicts.Verdict`), and as far as the labels allow ``auroc``,
        ``auroc_ci95`` (clustered by group), ``false_alarm_rate`` and ``sensitivity``.
    """
    found: dict[str, dict[str, Any]] = {}
    names = {
        "series": [r.series_name for r in records],
        "study": [r.study for r in records],
    }
    for level, normals in (("series", calibration.series), ("study", calibration.study)):
        members: dict[str, list[int]] = {}
        for i, name in enumerate(names[level]):
            members.setdefault(name, []).append(i)
        if len(members) == len(records):
            continue
        verdicts = [judge([scored[i] for i in m], normals, calibration) for m in members.values()]
        labels = np.array([max(records[i].label for i in m) for m in members.values()])
        scores = np.array([v.score for v in verdicts])
        flags = np.array([v.flag for v in verdicts])
        entry: dict[str, Any] = {
            "n_normal": int((labels == 0).sum()),
            "n_abnormal": int((labels == 1).sum()),
            "calibrated": float(np.mean([v.how == "calibrated" for v in verdicts])),
        }
        if entry["n_normal"] and entry["n_abnormal"]:
            groups = [records[m[0]].group for m in members.values()]
            entry["auroc"] = auroc(scores, labels)
            entry["auroc_ci95"] = bootstrap_interval(auroc, scores, labels, groups=groups)
        for name, label in (("false_alarm_rate", 0), ("sensitivity", 1)):
            if calibration.calibrated and (labels == label).any():
                entry[name] = float(flags[labels == label].mean())
        found[level] = entry
    return found


def _confounds(records: Sequence[Record]) -> dict[str, float]:
    """AUROC of plain numbers, to be read beside the detector's."""
    rows = [scalars(read_image(r.source), r.path.stat().st_size) for r in records]
    table = confound_table(rows, [r.label for r in records], ["test"] * len(records))
    return {c.name: c.test for c in table if c.test is not None}
