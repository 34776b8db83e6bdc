"""Scoring a test set against its labels: what ``metrics.json`` holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scrd.data.confounds import confound_table, scalars
from scrd.data.duplicates import luminance
from scrd.data.manifest import GROUPING, ManifestError, Record, read_manifest
from scrd.data.reading import ImageError, read_image
from scrd.detector import Detector, Scored
from scrd.localisation import box_mask, localisation_metrics, pointing_hit
from scrd.metrics import (
    auroc,
    average_precision,
    best_f1,
    bootstrap_interval,
    false_alarm_rate,
    sensitivity_at_far,
)
from scrd.runtime import versions

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
        "threshold": threshold if math.isfinite(threshold) else None,
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
    columns = sorted({name for r in records for name in r.attributes} - set(GROUPING))
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
            from scores, and ``localisation``, ``confounds``, ``n_failed``, ``seconds_per_image``,
            ``pooling`` and ``settings`` beside them.
    """

    records: tuple[Record, ...]
    scored: tuple[Scored, ...]
    failures: tuple[ImageError, ...]
    failed: tuple[Record, ...]
    metrics: Mapping[str, Any]


def evaluate(
    detector: Detector, data: str | Path, *, batch_size: int = 16, progress: bool = False
) -> Evaluation:
    """Score the test split of a data set against its labels.

    Nothing of the detector changes: threshold and pooling are those fixed at training time.

    Args:
        detector: trained.
        data: folder or manifest with a test split.
        batch_size: images a batch.
        progress: show a progress bar on standard error.

    Raises:
        ManifestError: the data set is not described well, or has no test split.
        ImageError: no test image can be read; the error is that of the first.
    """
    manifest = read_manifest(data)
    if not manifest.test:
        raise ManifestError(manifest.root, "no image in the split 'test'")
    started = time.perf_counter()
    results = list(
        detector.score([r.path for r in manifest.test], batch_size=batch_size, progress=progress)
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
    metrics = evaluate_scores(
        records,
        np.array([s.score for s in scored]),
        {name: np.array([s.statistics[name] for s in scored]) for name in scored[0].statistics},
        threshold=calibration.threshold,
        far=calibration.false_alarm_rate,
    )
    metrics |= {
        "n_failed": len(failures),
        "seconds_per_image": seconds / len(results),
        "pooling": calibration.pooling,
        "scale_weights": np.mean([s.scale_weights for s in scored], axis=0).tolist(),
    }
    localisation, unmarked = localise(
        records, [s.source_size for s in scored], lambda i: detector.source_map(scored[i])
    )
    if localisation:
        metrics["localisation"] = localisation
    failures += unmarked
    if metrics["n_normal"] and metrics["n_abnormal"]:
        metrics["confounds"] = _confounds(records)
    metrics["settings"] = {
        "data": manifest.root.name,
        "data_fingerprint": manifest.fingerprint,
        "config": detector.config.to_dict(),
        "trained": dict(detector.provenance),
        "evaluated": {"device": str(detector.device), "versions": versions()},
    }
    return Evaluation(records, scored, failures, failed, metrics)


def _confounds(records: Sequence[Record]) -> dict[str, float]:
    """AUROC of plain numbers, to be read beside the detector's."""
    rows = [scalars(read_image(r.path), r.path.stat().st_size) for r in records]
    table = confound_table(rows, [r.label for r in records], ["test"] * len(records))
    return {c.name: c.test for c in table if c.test is not None}


class _Lazy(Sequence[Any]):
    """A sequence whose items are made when asked for, one in memory at a time."""

    def __init__(self, make: Callable[[int], Any], length: int) -> None:
        self._make, self._length = make, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._make(index)


def mark(record: Record, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the lesions of an image are: (H, W) bool, from its mask or its boxes, else nowhere.

    Raises:
        ImageError: the mask cannot be read or has another size than the image, or a box lies
            outside it.
    """
    marked = np.zeros(size, dtype=bool)
    if record.mask is not None:
        mask = read_image(record.mask)
        mask = mask if mask.ndim == 2 else mask.max(axis=2)
        if mask.shape != size:
            reason = f"the mask is {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}"
            raise ImageError(record.mask, reason)
        marked |= mask > 0
    for box in record.boxes:
        try:
            marked |= box_mask(size, *box)
        except ValueError as e:
            raise ImageError(record.path, str(e)) from e
    return marked


def localise(
    records: Sequence[Record],
    sizes: Sequence[tuple[int, int]],
    source_map: Callable[[int], NDArray[np.float32]],
) -> tuple[dict[str, float | int], tuple[ImageError, ...]]:
    """Localisation on the images whose lesions are known; normals count as free of lesions.

    Two baselines stand beside the pointing game: the brightest place of the image, and its
    centre.

    Args:
        records: the N scored images.
        sizes: (height, width) of each source image in pixels.
        source_map: position → anomaly map (H, W) at the source image's size, any range; asked
            for repeatedly, so that one map at a time is in memory.

    Returns:
        The figures, none without a marked image; and the masks or boxes that cannot be used.
    """
    chosen, marked, failures = [], [], []
    bright = centre = 0
    for i, (record, size) in enumerate(zip(records, sizes, strict=True)):
        if record.mask is not None or record.boxes:
            try:
                mask = mark(record, size)
            except ImageError as e:
                failures.append(e)
                continue
            if mask.any():
                marked.append(i)
                grey = luminance(read_image(record.path))
                bright += pointing_hit(gaussian_filter(grey, 0.02 * max(grey.shape)), mask)
                centre += bool(mask[mask.shape[0] // 2, mask.shape[1] // 2])
        elif record.label == 1:
            continue
        chosen.append(i)
    if not marked:
        return {}, tuple(failures)
    measured = localisation_metrics(
        _Lazy(lambda n: source_map(chosen[n]), len(chosen)),
        _Lazy(lambda n: mark(records[chosen[n]], sizes[chosen[n]]), len(chosen)),
    )
    measured["brightest_place_hit_rate"] = bright / len(marked)
    measured["centre_hit_rate"] = centre / len(marked)
    return measured, tuple(failures)
