"""One run: train a method, score the test images, and write down all that tables need."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scrd.bench.found import VERDICTS
from scrd.bench.kept_maps import KeptMaps
from scrd.bench.machine import PeakMemory, device_name, finished, revision
from scrd.bench.material import Material
from scrd.bench.methods import Answers, train_method
from scrd.bench.places import Places
from scrd.bench.selection import BestOnTest
from scrd.bench.suite import OWN, SELECTIONS, Run
from scrd.evaluation.test_set import evaluate_scores
from scrd.metrics.ranks import roc_curve
from scrd.system.allocator import reused_memory
from scrd.system.devices import resolve_device, versions
from scrd.system.progress import counting

ROC_POINTS = 51
SCORE_BINS = 40
WEIGHT_BINS = 20


def measure(
    run: Run,
    material: Material,
    device: str,
    *,
    on_maps: Callable[[KeptMaps], None] = lambda kept: None,
    progress: bool = False,
) -> dict[str, Any]:
    """Do a run.

    Args:
        run: what to do.
        material: of its data set, read with its settings.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_maps: given the maps of the cases once the run has ended.
        progress: tell on standard error how far the work is.

    Returns:
        A line of the results file but for its ``key``; plain JSON types, numbers rounded to six
        digits.

    Raises:
        ScrdError: the teacher's weights cannot be had, a diverging loss, ...
    """
    place = resolve_device(device)
    config, prepared, (records, stack) = run.config, material.prepared, material.test
    best = None
    if run.select != SELECTIONS[0]:
        settings = (prepared.preprocessing, config.iterations, config.pooling)
        best = BestOnTest(material.test, *settings)
    # rivals shall have the memory that scrd's own training and scoring reuse
    with reused_memory(), PeakMemory(place) as fit_memory:
        trained = train_method(run, prepared, place.type, progress, best)
    trained.warm_up(stack)
    limit = int(config.image_cache_gib * 2**30)
    places = Places(material.test, prepared.preprocessing, limit)
    kept = KeptMaps(material.cases, material.test, prepared.preprocessing)

    def take(first: int, maps: Tensor) -> None:
        places.keep(first, maps)
        kept.of_test(first, maps)

    with reused_memory(), PeakMemory(place) as score_memory, counting("scoring", None, progress):
        started = time.perf_counter()
        answers = trained.answers(stack, take)
        seconds = time.perf_counter() - started
    labels = np.array([r.label for r in records])
    with counting("computing figures", None, progress):
        by_pooling = {
            name: evaluate_scores(
                records,
                scores,
                {},
                threshold=trained.thresholds.get(name),
                far=config.false_alarm_rate,
            )
            for name, scores in answers.statistics.items()
        }
    for name, threshold in trained.by_image.items():
        by_pooling[name] |= _by_image(answers.statistics[name], labels, threshold)
    metrics = by_pooling[OWN]
    metrics["auroc_by_pooling"] = {n: m["auroc"] for n, m in by_pooling.items() if "auroc" in m}
    line: dict[str, Any] = {
        "metrics": {**metrics, "n_failed": len(stack.failures)},
        "by_pooling": {name: _ranks(m) for name, m in by_pooling.items()},
        "pooling": trained.pooling,
        "curves": _curves(answers, labels),
        "cost": {
            "fit_seconds": trained.fit_seconds,
            "seconds_per_image": seconds / len(records),
            **_size(trained.module),
            "peak_memory_fit": fit_memory.bytes,
            "peak_memory_score": score_memory.bytes,
        },
        "normals": {
            "trained": len(prepared.fitting.index),
            "calibrated": len(prepared.calibrating.index),
            "unreadable": len(prepared.failures),
        },
        "split": dict(material.split),
        "selection": best.told() if best is not None else None,
    }
    if answers.scale_weights is not None:
        line["scale_weights"] = answers.scale_weights.mean(axis=0).tolist()
    if material.marked is not None:
        places = Places(material.marked, prepared.preprocessing, limit)

        def take_marked(first: int, maps: Tensor) -> None:
            places.keep(first, maps)
            kept.of_cases(first, maps)

        trained.answers(material.marked.stack, take_marked)
    on_maps(kept)
    with counting("comparing maps with lesions", None, progress):
        found = places.figures()
    if found:
        line["localisation"] = found
    line["machine"] = {"device": device_name(place), "threads": torch.get_num_threads()}
    rounded: dict[str, Any] = _rounded(line)
    return {
        **rounded,
        "versions": versions(),
        "revision": revision(),
        "finished": finished(),
    }


def _by_image(
    scores: NDArray[np.float64], labels: NDArray[np.int_], threshold: float
) -> dict[str, float]:
    """What the threshold flags whose rate is promised by image, under the last two ``VERDICTS``."""
    flagged = scores >= threshold
    shares = [flagged[labels == label] for label in (1, 0)]
    return {n: float(s.mean()) for n, s in zip(VERDICTS[2:], shares, strict=True) if len(s)}


def _ranks(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that a table may report under any pooling."""
    ranks = ("auroc", "auroc_ci95", "ap", "ap_ci95", "f1", "acc", "sensitivity_at_far")
    names = (*ranks, *VERDICTS, "within")
    return {name: metrics[name] for name in names if name in metrics}


def _curves(answers: Answers, labels: NDArray[np.int_]) -> dict[str, Any]:
    """What figures need, in a few hundred numbers.

    Returns:
        ``roc``: sensitivities at ``ROC_POINTS`` evenly spaced false-alarm rates from 0 to 1.
        ``histogram``: ``low`` and ``high`` ends of evenly wide bins, counts ``normal`` and
        ``abnormal``. ``by_pooling``: both once more under each other pooling.
        ``scale_weights``: counts in ``WEIGHT_BINS`` bins from 0 to 1, by scale.
    """
    curves: dict[str, Any] = _ranked(answers.scores, labels)
    others = {name: s for name, s in answers.statistics.items() if name != OWN}
    curves["by_pooling"] = {name: _ranked(scores, labels) for name, scores in others.items()}
    if answers.scale_weights is not None:
        curves["scale_weights"] = [
            np.histogram(weights, WEIGHT_BINS, (0, 1))[0].tolist()
            for weights in answers.scale_weights.T.clip(0, 1)
        ]
    return curves


def _ranked(scores: NDArray[np.float64], labels: NDArray[np.int_]) -> dict[str, Any]:
    curves: dict[str, Any] = {}
    if 0 < labels.sum() < len(labels):
        rates, sensitivities = roc_curve(scores, labels)
        grid = np.linspace(0, 1, ROC_POINTS)
        curves["roc"] = np.interp(grid, rates, sensitivities).tolist()
    edges = np.histogram_bin_edges(scores, SCORE_BINS)
    curves["histogram"] = {
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "normal": np.histogram(scores[labels == 0], edges)[0].tolist(),
        "abnormal": np.histogram(scores[labels == 1], edges)[0].tolist(),
    }
    return curves


def _size(module: nn.Module) -> dict[str, int]:
    """Parameters that are trained, all, and the bytes of everything learnt or remembered."""
    parameters = list(module.parameters())
    held = [*parameters, *module.buffers()]
    return {
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "parameters": sum(p.numel() for p in parameters),
        "bytes": sum(t.numel() * t.element_size() for t in held),
    }


def _rounded(value: Any) -> Any:
    """Floats to six significant digits, in whatever they are nested; numpy's become Python's."""
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}")
    return value
