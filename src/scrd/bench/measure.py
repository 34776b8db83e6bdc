"""One run: train a method, score the test images, and write down all that tables need."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scrd.bench.machine import PeakMemory, device_name, finished, revision
from scrd.bench.methods import Answers, Trained, train_method
from scrd.bench.suite import OWN, Run
from scrd.config import Config
from scrd.data.cache import ImageStack, load_images
from scrd.data.manifest import read_manifest
from scrd.data.preprocess import Preprocessing, map_to_source
from scrd.data.record import Record
from scrd.errors import ManifestError
from scrd.evaluation.localise import localise
from scrd.evaluation.test_set import evaluate_scores
from scrd.metrics.ranks import roc_curve
from scrd.system.devices import resolve_device, versions
from scrd.system.progress import counting
from scrd.training.prepare import Prepared, prepare

LOCALISED = {"brain-tumor-mri": "brain-tumor-boxes"}
"""Data set → folder beside it whose boxes say whether its models look at the right place."""

ROC_POINTS = 51
SCORE_BINS = 40
WEIGHT_BINS = 20


class Labelled(NamedTuple):
    """Test images that were read: ``records[i]`` belongs to ``stack.images[i]``."""

    records: tuple[Record, ...]
    stack: ImageStack


@dataclass(frozen=True)
class Material:
    """Everything of a data set that the runs of one seed share, read once.

    Attributes:
        prepared: the train normals, divided.
        test: the test images.
        marked: the images of the data set's entry in :data:`LOCALISED`, if they are there.
    """

    prepared: Prepared
    test: Labelled
    marked: Labelled | None


def read_material(folder: Path, config: Config, *, progress: bool = False) -> Material:
    """Read a data set.

    Args:
        folder: of the data set.
        config: settings, of which those of :func:`scrd.training.prepare.prepare` act.
        progress: tell on standard error how far the work is.

    Raises:
        ManifestError: the data set is not described well, or has no test split.
        TrainingError: too few images or groups to train on.
        ImageError: no test image can be read; the error is that of the first.
    """
    prepared = prepare(folder, config, progress=progress)
    if not prepared.manifest.test:
        raise ManifestError(prepared.manifest.root, "no image in the split 'test'")
    limit = int(config.image_cache_gib * 2**30)
    test = _read(prepared.manifest.test, prepared.preprocessing, limit, progress)
    marked = None
    name = LOCALISED.get(folder.name)
    if name is not None and (folder.parent / name).is_dir():
        marked = _read(
            read_manifest(folder.parent / name).test, prepared.preprocessing, limit, progress
        )
    return Material(prepared, test, marked)


def _read(
    records: Sequence[Record], preprocessing: Preprocessing, limit: int, progress: bool
) -> Labelled:
    with counting("reading test images", len(records), progress) as advance:
        stack = load_images(
            [r.source for r in records], preprocessing, memory_limit=limit, on_progress=advance
        )
    if not stack.index:
        raise stack.failures[0]
    return Labelled(tuple(records[i] for i in stack.index), stack)


def measure(run: Run, material: Material, device: str, *, progress: bool = False) -> dict[str, Any]:
    """Do a run.

    Args:
        run: what to do.
        material: of its data set, read with its settings.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: tell on standard error how far the work is.

    Returns:
        A line of the results file but for its ``key``; plain JSON types, numbers rounded to six
        digits.

    Raises:
        ScrdError: the teacher's weights cannot be had, a diverging loss, ...
    """
    place = resolve_device(device)
    config, prepared, (records, stack) = run.config, material.prepared, material.test
    with PeakMemory(place) as fit_memory:
        trained = train_method(run, prepared, place.type, progress)
    trained.warm_up(stack)
    with PeakMemory(place) as score_memory, counting("scoring", None, progress):
        started = time.perf_counter()
        answers = trained.answers(stack)
        seconds = time.perf_counter() - started
    labels = np.array([r.label for r in records])
    with counting("computing figures", None, progress):
        by_pooling = {
            name: evaluate_scores(
                records, scores, {}, threshold=trained.threshold, far=config.false_alarm_rate
            )
            for name, scores in answers.statistics.items()
        }
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
    }
    if answers.scale_weights is not None:
        line["scale_weights"] = answers.scale_weights.mean(axis=0).tolist()
    if material.marked is not None:
        with counting("comparing maps with lesions", None, progress):
            found = _localisation(trained, material.marked, prepared.preprocessing)
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


def _ranks(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that a table may report under any pooling."""
    names = ("auroc", "auroc_ci95", "ap", "ap_ci95", "f1", "acc", "sensitivity_at_far")
    return {name: metrics[name] for name in names if name in metrics}


def _curves(answers: Answers, labels: NDArray[np.int_]) -> dict[str, Any]:
    """What figures need, in a few hundred numbers.

    Returns:
        ``roc``: sensitivities at ``ROC_POINTS`` evenly spaced false-alarm rates from 0 to 1.
        ``histogram``: ``low`` and ``high`` ends of evenly wide bins, counts ``normal`` and
        ``abnormal``. ``scale_weights``: counts in ``WEIGHT_BINS`` bins from 0 to 1, by scale.
    """
    curves: dict[str, Any] = {}
    scores = answers.scores
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
    if answers.scale_weights is not None:
        curves["scale_weights"] = [
            np.histogram(weights, WEIGHT_BINS, (0, 1))[0].tolist()
            for weights in answers.scale_weights.T.clip(0, 1)
        ]
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


def _localisation(
    trained: Trained, marked: Labelled, preprocessing: Preprocessing
) -> dict[str, float | int]:
    """See :func:`scrd.evaluation.localise.localise`; empty for a method without maps."""
    records, stack = marked
    maps = trained.answers(stack, with_maps=True).maps
    if maps is None:
        return {}
    found = localise(
        records,
        stack.source_sizes,
        lambda i: map_to_source(maps[i].numpy(), stack.source_sizes[i], preprocessing),
    )
    left_out = {"n_left_out": len(found.failures)}
    return found.figures | left_out if found.figures and found.failures else found.figures


def _rounded(value: Any) -> Any:
    """Floats to six significant digits, in whatever they are nested; numpy's become Python's."""
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}")
    return value
