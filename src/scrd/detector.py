"""The detector: what a Python user holds.

The only module that knows the whole way of an image: data → model → scoring → calibration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrd import __version__
from scrd.calibration import Calibration, calibrate
from scrd.config import Config, from_dict
from scrd.data.cache import ImageStack, iter_batches, load_images
from scrd.data.intensity import Intensity, fit_intensity
from scrd.data.manifest import Record, read_manifest
from scrd.data.preprocess import Preprocessing, content_mask, map_to_source
from scrd.data.reading import ImageError, read_image
from scrd.data.split import split_by_group
from scrd.errors import ConfigError
from scrd.model import SCRD, build_model
from scrd.model_card import model_card
from scrd.progress import counting, training_bar
from scrd.scoring import infer, map_statistics, pool
from scrd.storage import Contents, ModelFolderError, read_model_folder, write_model_folder
from scrd.training import LogEntry, TrainingError, make_fabric, train

if TYPE_CHECKING:
    from scrd.evaluation import Evaluation

INTENSITY_SAMPLE = 256
"""Training images from which the intensity rule is fixed."""
SELECTION_SHARE = 0.2
"""Share of the held-out normals that choose the pooling; the others calibrate, and only that."""


@dataclass(frozen=True)
class Scored:
    """The answer for one image.

    Attributes:
        path: the file.
        score: raw, larger is more anomalous; see :func:`scrd.scoring.pool` for the unit.
        p_value: conformal, in (0, 1]: a normal image has one this small or smaller with at most
            this probability.
        flag: the p-value is at most the chosen false-alarm rate.
        statistics: ``mean``, ``top``, ``max`` of the anomaly map over the image, in [0, 2], and
            ``fused``, in standard deviations of normals.
        scale_weights: α, one a scale, sum 1.
        input_map: anomaly map at the model's resolution, (S, S), float32, in [0, 2].
        source_size: (height, width) of the source image in pixels.
    """

    path: Path
    score: float
    p_value: float
    flag: bool
    statistics: Mapping[str, float]
    scale_weights: tuple[float, ...]
    input_map: NDArray[np.float32]
    source_size: tuple[int, int]


class Detector:
    """A trained, calibrated anomaly detector.

    Make one with :meth:`fit` or :meth:`load`.

    Attributes:
        config: the settings it was made with.
        preprocessing: how a source image becomes model input.
        calibration: what held-out normals said.
        provenance: what it was trained on, with which versions; plain JSON types.
        log: the training log.
        failures: training images that could not be read.
    """

    def __init__(
        self,
        model: SCRD,
        config: Config,
        preprocessing: Preprocessing,
        calibration: Calibration,
        provenance: Mapping[str, Any],
        log: Sequence[LogEntry] = (),
        failures: Sequence[ImageError] = (),
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        # as in training: another memory format rounds otherwise, and scores would differ
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.config = config
        self.preprocessing = preprocessing
        self.calibration = calibration
        self.provenance = provenance
        self.log = tuple(log)
        self.failures = tuple(failures)

    @classmethod
    def fit(
        cls,
        data: str | Path,
        config: Config | None = None,
        *,
        work: str | Path | None = None,
        resume: bool = False,
        device: str = "auto",
        progress: bool = False,
    ) -> Detector:
        """Train on the normals of a data set's train split and calibrate on held-out ones.

        The train normals are divided by group (patient) into three parts: one trains, one
        chooses the pooling, one calibrates. Neither the test split nor a label is looked at.

        Args:
            data: folder or manifest, see :func:`scrd.data.manifest.read_manifest`.
            config: settings; the default is the paper's budget.
            work: folder for checkpoints, made if needed. None keeps no checkpoints.
            resume: go on from the checkpoint in ``work``, if there is one. The result is the
                same, bit for bit on the same device, as without the interruption.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            progress: show progress bars on standard error.

        Raises:
            ManifestError: the data set is not described well.
            TeacherError: the teacher or its weights cannot be had.
            TrainingError: too few images or groups, a diverging loss, a foreign checkpoint.
        """
        config = config or Config()
        started = time.perf_counter()
        resolve_device(device)
        fabric = make_fabric(config.precision, device)
        manifest = read_manifest(data, for_training=True)
        fitting, selection, calibrating = hold_out(manifest.train_normals, config)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = build_model(config.teacher, config.weights)
        preprocessing = _fix_preprocessing(fitting, config)
        folder = Path(work) if work is not None else None
        checkpoint = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint = folder / "checkpoint.safetensors"
            if not resume:
                checkpoint.unlink(missing_ok=True)
        stacks = []
        for label, part in (
            ("reading training images", fitting),
            ("reading held-out images", selection),
            ("reading held-out images", calibrating),
        ):
            with counting(label, len(part), progress) as advance:
                stacks.append(
                    load_images(
                        [r.path for r in part],
                        preprocessing,
                        memory_limit=int(config.image_cache_gib * 2**30),
                        folder=folder,
                        on_progress=advance,
                    )
                )
        failures = [f for stack in stacks for f in stack.failures]
        if not all(len(stack.index) for stack in stacks):
            raise TrainingError(
                f"{manifest.root}: too few readable normal images; the first problem: {failures[0]}"
            )
        with training_bar(config.iterations, progress) as on_log:
            log = train(
                model,
                stacks[0].images,
                config,
                fabric=fabric,
                checkpoint=checkpoint,
                identity=_identity(config, preprocessing, manifest.fingerprint),
                on_log=on_log,
            )
        trained = time.perf_counter() - started
        calibration = calibrate(
            model,
            selection=_with_content(stacks[1], preprocessing),
            calibrating=_with_content(stacks[2], preprocessing),
            groups=[calibrating[i].group or f"image {i}" for i in stacks[2].index],
            config=config,
        )
        provenance = {
            "data": manifest.root.name,
            "fingerprint": manifest.fingerprint,
            "normals": {
                "trained": len(stacks[0].index),
                "selected": len(stacks[1].index),
                "calibrated": len(stacks[2].index),
                "calibration_groups": len(set(calibration.groups)),
            },
            "unreadable": [f"{f.path.name}: {f.reason}" for f in failures],
            "teacher_weights": model.teacher.source,
            "seconds": round(trained, 1),
            "device": str(fabric.device),
            "versions": versions(),
        }
        return cls(
            model, config, preprocessing, calibration, provenance, log, failures, str(fabric.device)
        )

    def score(
        self, paths: Sequence[str | Path], *, batch_size: int = 16, progress: bool = False
    ) -> Iterator[Scored | ImageError]:
        """Score image files.

        Args:
            paths: the files; read ahead in threads, never all at once.
            batch_size: images a batch.
            progress: show a progress bar on standard error.

        Yields:
            One result a path, in order: :class:`Scored`, or the :class:`ImageError` that says
            why the file could not be read.
        """
        files = [Path(p) for p in paths]
        with counting("scoring", len(files), progress) as advance:
            done = 0
            for batch in iter_batches(files, self.preprocessing, batch_size=batch_size):
                results: dict[int, Scored | ImageError] = dict(self._score_batch(files, batch))
                count = len(batch.index) + len(batch.failures)
                missing = [i for i in range(done, done + count) if i not in results]
                results.update(zip(missing, batch.failures, strict=True))
                for i in range(done, done + count):
                    yield results[i]
                done += count
                advance(done)

    def _score_batch(
        self, files: Sequence[Path], batch: ImageStack
    ) -> Iterator[tuple[int, Scored]]:
        if not batch.index:
            return
        maps, alpha = infer(self.model, batch.images)
        statistics = map_statistics(maps, _with_content(batch, self.preprocessing)[1])
        normals = self.calibration.pool_statistics
        statistics["fused"] = pool(statistics, "fused", normals)
        scores = statistics[self.calibration.pooling].double().numpy()
        p_values = self.calibration.p_values(scores)
        for row, i in enumerate(batch.index):
            yield (
                i,
                Scored(
                    path=files[i],
                    score=float(scores[row]),
                    p_value=float(p_values[row]),
                    flag=bool(scores[row] >= self.calibration.threshold),
                    statistics={name: float(s[row]) for name, s in statistics.items()},
                    scale_weights=tuple(alpha[row].tolist()),
                    input_map=maps[row].numpy(),
                    source_size=batch.source_sizes[row],
                ),
            )

    def evaluate(
        self, data: str | Path, *, batch_size: int = 16, progress: bool = False
    ) -> Evaluation:
        """Score the test split of a data set against its labels.

        See :func:`scrd.evaluation.evaluate`, also for what is raised.
        """
        from scrd.evaluation import evaluate

        return evaluate(self, data, batch_size=batch_size, progress=progress)

    def source_map(self, scored: Scored) -> NDArray[np.float32]:
        """The anomaly map in the source image's geometry, (H, W), float32, in [0, 2]."""
        return map_to_source(scored.input_map, scored.source_size, self.preprocessing)

    def save(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the model folder, whole or not at all; see :mod:`scrd.storage`.

        Raises:
            ModelFolderError: the place is taken.
        """
        threshold = self.calibration.threshold
        contents = Contents(
            config={
                "scrd_version": __version__,
                "config": self.config.to_dict(),
                "preprocessing": dataclasses.asdict(self.preprocessing),
                "student_rectified": self.model.student.rectified,
                "provenance": self.provenance,
            },
            calibration={
                **dataclasses.asdict(self.calibration),
                # JSON knows no infinity
                "threshold": threshold if math.isfinite(threshold) else None,
            },
            weights=self.model.state_dict(),
        )
        lines = "".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in self.log)
        card = model_card(self.config, self.preprocessing, self.calibration, self.provenance)
        write_model_folder(Path(folder), contents, log_lines=lines, card=card, replace=replace)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Detector:
        """Read a model folder and verify it.

        Raises:
            ModelFolderError: missing, damaged, or of an unknown format.
        """
        contents = read_model_folder(Path(folder))
        raw = contents.config
        try:
            config = from_dict(Config, raw["config"])
            rule = raw["preprocessing"]
            preprocessing = Preprocessing(**{**rule, "intensity": Intensity(**rule["intensity"])})
            model = build_model(config.teacher, "deferred", rectify=raw["student_rectified"])
            model.load_state_dict(contents.weights)
            threshold = contents.calibration["threshold"]
            calibration = from_dict(
                Calibration,
                {**contents.calibration, "threshold": math.inf if threshold is None else threshold},
            )
            provenance = raw["provenance"]
        except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as e:
            raise ModelFolderError(
                f"{Path(folder) / 'config.json'}: does not describe this model "
                f"({type(e).__name__}: {e})"
            ) from e
        path = Path(folder) / "training.jsonl"
        try:
            log = [from_dict(LogEntry, json.loads(x)) for x in path.read_text().splitlines()]
        except (ConfigError, OSError, TypeError, ValueError) as e:
            raise ModelFolderError(f"{path}: not a readable training log ({e})") from e
        return cls(model, config, preprocessing, calibration, provenance, log, (), device)


def resolve_device(device: str) -> torch.device:
    """``auto`` is the first of CUDA, MPS and CPU that is there.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there.get(device, False):
        known = ", ".join(name for name, available in there.items() if available)
        raise ConfigError(f"no device {device!r} on this machine: choose auto, {known}")
    return torch.device(device)


def versions() -> dict[str, str]:
    """Versions and machine that produced a result."""
    import timm

    return {
        "scrd": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def hold_out(
    normals: Sequence[Record], config: Config
) -> tuple[list[Record], list[Record], list[Record]]:
    """Divide train normals by group into those that train, choose the pooling, and calibrate.

    Raises:
        TrainingError: too few groups for three parts.
    """
    held = config.held_out
    fractions = (1 - held, held * SELECTION_SHARE, held * (1 - SELECTION_SHARE))
    try:
        parts = split_by_group([r.group for r in normals], fractions, config.seed)
    except ValueError as e:
        raise TrainingError(f"the train normals cannot be held out: {e}") from e
    fitting, selection, calibrating = ([normals[i] for i in part] for part in parts)
    return fitting, selection, calibrating


def _fix_preprocessing(records: Sequence[Record], config: Config) -> Preprocessing:
    """Fix the intensity rule on an even sample of the training images."""
    step = max(1, len(records) // INTENSITY_SAMPLE)
    sample = _readable(records[::step])
    first = next(sample, None)
    if first is None:
        raise TrainingError(f"none of the training images can be read, e.g. {records[0].path}")
    try:
        images = itertools.chain([first], sample)
        intensity = fit_intensity(images, window=config.window, channels=config.channels)
    except ValueError as e:
        raise TrainingError(f"no intensity rule fits the training images: {e}") from e
    return Preprocessing(intensity, config.image_size, config.resize)


def _readable(records: Sequence[Record]) -> Iterator[NDArray[Any]]:
    """One image in memory at a time; what cannot be read is reported when the part is read."""
    for record in records:
        with contextlib.suppress(ImageError):
            yield read_image(record.path)


def _identity(config: Config, preprocessing: Preprocessing, fingerprint: str) -> str:
    """What a checkpoint must agree on: every setting that acts on training, and the data."""
    settings = config.to_dict()
    for free in ("checkpoint_every", "false_alarm_rate", "pooling", "image_cache_gib"):
        del settings[free]
    identity = {**settings, "preprocessing": dataclasses.asdict(preprocessing), "data": fingerprint}
    return json.dumps(json.loads(json.dumps(identity)), sort_keys=True)


def _with_content(stack: ImageStack, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """The images of a stack and where they are not padding, (N, S, S) bool."""
    masks = [content_mask(size, preprocessing) for size in stack.source_sizes]
    return stack.images, torch.stack(masks)
