"""From a data set to a trained and calibrated network."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from scrd.calibration import Calibration
from scrd.config import Config
from scrd.data.cache import ImageStack, load_images
from scrd.data.contract import Contract, learn_contract
from scrd.data.intensity import Scope, fit_intensity
from scrd.data.manifest import Manifest, Record, read_manifest
from scrd.data.preprocess import Preprocessing, content_masks
from scrd.data.reading import ImageError, read_image, read_info
from scrd.data.split import split_by_group
from scrd.learning import calibrate, learn_normals
from scrd.model import SCRD, build_model
from scrd.objectives import OBJECTIVES
from scrd.progress import counting, training_bar
from scrd.runtime import make_fabric, resolve_device, versions
from scrd.training import LogEntry, TrainingError, train

INTENSITY_SAMPLE = 256
"""Training images from which the intensity rule is fixed."""

CONTRACT_SAMPLE = 1000
"""Training images whose headers tell what the model knows."""


@dataclass(frozen=True)
class Fitted:
    """What training leaves; see :class:`scrd.detector.Detector` for the attributes."""

    model: SCRD
    config: Config
    preprocessing: Preprocessing
    calibration: Calibration
    provenance: Mapping[str, Any]
    contract: Contract
    log: tuple[LogEntry, ...]
    failures: tuple[ImageError, ...]


@dataclass(frozen=True)
class Prepared:
    """The train normals of a data set, read and divided; several detectors can be fitted on it.

    Attributes:
        manifest: of the data set.
        preprocessing: fixed on the images that train.
        fitting: images that train.
        calibrating: held-out images that calibrate.
        groups: group of each image of ``calibrating``; one without a group is its own.
        series: series of each; an image of no series is one by itself.
        studies: study of each.
        contract: the kinds of the images of ``fitting``.
    """

    manifest: Manifest
    preprocessing: Preprocessing
    fitting: ImageStack
    calibrating: ImageStack
    groups: tuple[str, ...]
    series: tuple[str, ...]
    studies: tuple[str, ...]
    contract: Contract

    @property
    def failures(self) -> tuple[ImageError, ...]:
        """The training images that could not be read."""
        stacks = (self.fitting, self.calibrating)
        return tuple(f for stack in stacks for f in stack.failures)


def prepare(
    data: str | Path | Manifest,
    config: Config,
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> Prepared:
    """Read and divide the train normals of a data set.

    Args:
        data: folder or manifest, see :func:`scrd.data.manifest.read_manifest`, or what that gave.
        config: settings; those that act here are ``seed``, ``held_out``, ``image_size``,
            ``resize``, ``channels``, ``window`` and ``image_cache_gib``.
        folder: for images that exceed the memory limit.
        progress: show progress bars on standard error.

    Raises:
        ManifestError: the data set is not described well.
        TrainingError: too few images or groups.
    """
    manifest = data if isinstance(data, Manifest) else read_manifest(data, for_training=True)
    fitting, calibrating = hold_out(manifest.train_normals, config)
    contract = _learn_contract(fitting)
    preprocessing = _fix_preprocessing(fitting, config, contract)
    stacks = []
    for label, part in (
        ("reading training images", fitting),
        ("reading held-out images", calibrating),
    ):
        with counting(label, len(part), progress) as advance:
            stacks.append(
                load_images(
                    [r.source for r in part],
                    preprocessing,
                    memory_limit=int(config.image_cache_gib * 2**30),
                    folder=folder,
                    on_progress=advance,
                )
            )
    held_out = [calibrating[i] for i in stacks[1].index]
    prepared = Prepared(
        manifest,
        preprocessing,
        stacks[0],
        stacks[1],
        groups=tuple(r.group or r.name for r in held_out),
        series=tuple(r.series_name for r in held_out),
        studies=tuple(r.study for r in held_out),
        contract=contract,
    )
    if not all(len(stack.index) for stack in stacks):
        raise TrainingError(
            f"{manifest.root}: too few readable normal images; "
            f"the first problem: {prepared.failures[0]}"
        )
    return prepared


def fit(
    data: str | Path | Prepared,
    config: Config | None,
    *,
    work: str | Path | None,
    resume: bool,
    device: str,
    devices: int,
    num_nodes: int,
    progress: bool,
) -> Fitted:
    """Train and calibrate; :meth:`scrd.detector.Detector.fit` describes arguments and errors."""
    config = config or Config()
    started = time.perf_counter()
    resolve_device(device)
    fabric = make_fabric(config.precision, device, devices, num_nodes)
    fabric.launch()
    progress = progress and fabric.is_global_zero
    if not isinstance(data, Prepared):
        # says what is wrong before a teacher is loaded
        source = read_manifest(data, for_training=True)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        # a student that ends in ReLUs cannot reach features of both signs
        rectify = False if OBJECTIVES[config.objective].standardised else None
        model = build_model(config.teacher, config.weights, rectify, config.image_size)
    folder = Path(work) if work is not None else None
    checkpoint = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint.safetensors"
        if not resume:
            checkpoint.unlink(missing_ok=True)
    if not isinstance(data, Prepared):
        data = prepare(source, config, folder=folder, progress=progress)
    manifest, preprocessing = data.manifest, data.preprocessing
    with training_bar(config.iterations, progress) as on_log:
        log = train(
            model,
            torch.from_numpy(data.fitting.images),
            config,
            fabric=fabric,
            checkpoint=checkpoint,
            identity=_identity(config, preprocessing, manifest.fingerprint),
            on_log=on_log,
        )
    trained = time.perf_counter() - started
    learn_normals(
        model,
        torch.from_numpy(data.fitting.images),
        torch.from_numpy(content_masks(data.fitting.source_sizes, preprocessing)),
        config,
    )
    calibration = calibrate(
        model,
        torch.from_numpy(data.calibrating.images),
        torch.from_numpy(content_masks(data.calibrating.source_sizes, preprocessing)),
        groups=data.groups,
        series=data.series,
        studies=data.studies,
        config=config,
    )
    provenance = {
        "data": manifest.root.name,
        "fingerprint": manifest.fingerprint,
        "normals": {
            "trained": len(data.fitting.index),
            "calibrated": len(data.calibrating.index),
            "calibration_groups": len(set(calibration.groups)),
        },
        "unreadable": [f"{f.path.name}: {f.reason}" for f in data.failures],
        "teacher_weights": model.teacher.source,
        "seconds": round(trained, 1),
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "versions": versions(),
    }
    return Fitted(
        model,
        config,
        preprocessing,
        calibration,
        provenance,
        data.contract,
        tuple(log),
        data.failures,
    )


def hold_out(normals: Sequence[Record], config: Config) -> tuple[list[Record], list[Record]]:
    """Divide train normals by group into those that train and those that calibrate.

    Raises:
        TrainingError: too few groups for two parts.
    """
    fractions = (1 - config.held_out, config.held_out)
    try:
        parts = split_by_group([r.group for r in normals], fractions, config.seed)
    except ValueError as e:
        raise TrainingError(f"the train normals cannot be held out: {e}") from e
    fitting, calibrating = ([normals[i] for i in part] for part in parts)
    return fitting, calibrating


def _learn_contract(records: Sequence[Record]) -> Contract:
    """Read the headers of an even sample of the training images."""
    infos = []
    for record in records[:: -(-len(records) // CONTRACT_SAMPLE)]:
        with contextlib.suppress(ImageError):
            infos.append(read_info(record.source))
    return learn_contract(infos)


def _fix_preprocessing(
    records: Sequence[Record], config: Config, contract: Contract
) -> Preprocessing:
    """Fix the intensity rule on an even sample of the training images."""
    step = max(1, len(records) // INTENSITY_SAMPLE)
    sample = _readable(records[::step])
    first = next(sample, None)
    if first is None:
        raise TrainingError(f"none of the training images can be read, e.g. {records[0].path}")
    try:
        window = window_for(contract) if config.window == "auto" else config.window
        images = itertools.chain([first], sample)
        intensity = fit_intensity(images, window=window, channels=config.channels)
    except ValueError as e:
        raise TrainingError(f"no intensity rule fits the training images: {e}") from e
    return Preprocessing(intensity, config.image_size, config.resize)


def window_for(contract: Contract) -> tuple[float, float] | Scope:
    """The intensity window for images of one kind.

    CT: -1,000 to 1,000 HU. What has no common unit, such as MR, PET and NIfTI: each series' own.
    Radiographs, photographs and all others: each image's own.

    Raises:
        ValueError: the training images are of several kinds.
    """
    kinds: dict[tuple[float, float] | Scope, list[str]] = {}
    for found in contract.units:
        kinds.setdefault(_WINDOWS.get(found, "image"), []).append(found)
    if len(kinds) > 1:
        raise ValueError(
            f"values of several kinds ({', '.join(contract.units)}): train one model a kind, or "
            "give an intensity window"
        )
    return next(iter(kinds), "image")


_WINDOWS: dict[str, tuple[float, float] | Scope] = {
    "HU": (-1000.0, 1000.0),
    "rescaled": "series",
    "NIfTI": "series",
}


def _readable(records: Sequence[Record]) -> Iterator[NDArray[Any]]:
    """One image in memory at a time; what cannot be read is reported when the part is read."""
    for record in records:
        with contextlib.suppress(ImageError):
            yield read_image(record.source)


def _identity(config: Config, preprocessing: Preprocessing, fingerprint: str) -> str:
    """What a checkpoint must agree on: every setting that acts on training, and the data."""
    settings = config.to_dict()
    for free in (
        "checkpoint_every",
        "false_alarm_rate",
        "pooling",
        "acquisition",
        "image_cache_gib",
    ):
        del settings[free]
    identity = {**settings, "preprocessing": dataclasses.asdict(preprocessing), "data": fingerprint}
    return json.dumps(json.loads(json.dumps(identity)), sort_keys=True)
