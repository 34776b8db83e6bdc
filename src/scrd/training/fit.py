"""From a data set to a trained and calibrated network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger

from scrd.config import Config
from scrd.data.contract import Contract
from scrd.data.manifest import Manifest, read_manifest
from scrd.data.preprocess import Preprocessing, content_masks
from scrd.errors import ImageError
from scrd.model import SCRD, build_model
from scrd.model.fingerprint import Fingerprint, fingerprint
from scrd.presets.files import Preset
from scrd.scoring.calibration import Calibration
from scrd.storage.plain import to_plain
from scrd.system.devices import make_fabric, resolve_device, versions
from scrd.system.progress import counting
from scrd.training.calibrate import calibrate, uncalibrated
from scrd.training.journal import Draw, Journal
from scrd.training.log import LogEntry
from scrd.training.loop import train
from scrd.training.normals import learn_normals
from scrd.training.prepare import Prepared, prepare

Watch = Callable[[int, SCRD], None]


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


def fit(
    data: str | Path | Manifest | Prepared,
    config: Config | None,
    *,
    work: str | Path | None,
    resume: bool,
    device: str,
    devices: int,
    num_nodes: int,
    progress: bool,
    logger: Logger | None,
    preset: Preset | None,
    draw: Draw,
    watch: Watch | None = None,
) -> Fitted:
    """Train and calibrate; :meth:`scrd.detector.Detector.fit` describes arguments and errors."""
    config = config or Config()
    started = time.perf_counter()
    resolve_device(device)
    fabric = make_fabric(config.precision, device, devices, num_nodes, logger)
    fabric.launch()
    progress = progress and fabric.is_global_zero
    if not isinstance(data, Prepared):
        # says what is wrong before a teacher is loaded
        source = data if isinstance(data, Manifest) else read_manifest(data, for_training=True)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build_model(
            config.teacher,
            config.weights,
            None,
            config.image_size,
            objective=config.objective,
            smoothing=config.smoothing,
        )
    teacher = fingerprint(model.teacher, config.image_size)
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
    log = _train(model, data, config, fabric, checkpoint, teacher, draw, progress, watch)
    trained = time.perf_counter() - started
    images = torch.from_numpy(data.fitting.images)
    content = torch.from_numpy(content_masks(data.fitting.source_sizes, preprocessing))
    learn_normals(model, images, content, config, progress=progress)
    if data.calibrating.index:
        calibration = calibrate(
            model,
            torch.from_numpy(data.calibrating.images),
            torch.from_numpy(content_masks(data.calibrating.source_sizes, preprocessing)),
            groups=data.groups,
            series=data.series,
            studies=data.studies,
            config=config,
            progress=progress,
        )
    else:
        calibration = uncalibrated(model, images, content, config, progress=progress)
    provenance = {
        "data": manifest.root.name,
        "fingerprint": manifest.fingerprint,
        "normals": {
            "trained": len(data.fitting.index),
            "calibrated": len(data.calibrating.index),
            "calibration_groups": len(set(calibration.groups)),
        },
        "unreadable": [f"{f.path.name}: {f.reason}" for f in data.failures],
        "doubtful": [f"{f.path.name}: {f.reason}" for f in data.doubts],
        "teacher_weights": model.teacher.source,
        "teacher": to_plain(teacher),
        "seconds": round(trained, 1),
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "versions": versions(),
    }
    if preset is not None:
        provenance["preset"] = {"name": preset.name, "changed": preset.changed(config)}
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


def _train(
    model: SCRD,
    data: Prepared,
    config: Config,
    fabric: Fabric,
    checkpoint: Path | None,
    teacher: Fingerprint,
    draw: Draw,
    progress: bool,
    watch: Watch | None,
) -> list[LogEntry]:
    """Train, and tell everybody who listens: terminal or log file, work folder, logger."""
    journal = None
    if checkpoint is not None and fabric.is_global_zero:
        journal = Journal(checkpoint.parent, draw)
    for logger in fabric.loggers:
        logger.log_hyperparams(to_plain(config))
    with counting("training", config.iterations, progress, unit="iteration") as advance:

        def on_start(log: list[LogEntry]) -> None:
            if journal is not None:
                journal.begin(log)

        def on_log(entry: LogEntry) -> None:
            advance(entry.iteration, str(entry))
            fabric.log_dict(entry.figures(), entry.iteration)
            if journal is not None:
                journal.add(entry)

        def on_step(done: int) -> None:
            advance(done)
            if watch is not None:
                watch(done, model)

        try:
            log = train(
                model,
                torch.from_numpy(data.fitting.images),
                config,
                fabric=fabric,
                checkpoint=checkpoint,
                identity=_identity(config, data, teacher),
                on_start=on_start,
                on_step=on_step,
                on_log=on_log,
            )
        except BaseException:
            _close(fabric, journal, "failed")
            raise
    _close(fabric, journal, "success")
    return log


def _close(fabric: Fabric, journal: Journal | None, status: str) -> None:
    if journal is not None:
        journal.draw()
    for logger in fabric.loggers:
        logger.finalize(status)


def _identity(config: Config, data: Prepared, teacher: Fingerprint) -> str:
    """What a checkpoint must agree on: settings that act on training, the data, the teacher."""
    settings = to_plain(config)
    for free in (
        "checkpoint_every",
        "deterministic",
        "false_alarm_rate",
        "promise",
        "pooling",
        "smoothing",
        "acquisition",
        "image_cache_gib",
    ):
        del settings[free]
    identity = {
        **settings,
        "preprocessing": to_plain(data.preprocessing),
        "data": data.manifest.fingerprint,
        "teacher_sha256": teacher.sha256,
        # what came of it: the rate of false alarms may have had a say in it
        "held_out": len(data.calibrating.index),
    }
    return json.dumps(json.loads(json.dumps(identity)), sort_keys=True)
