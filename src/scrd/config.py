"""Everything that defines a detector, as frozen dataclasses that are saved with the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from scrd.errors import ConfigError
from scrd.scoring.promise import Promise
from scrd.synthesis.settings import NoiseSettings

ObjectiveName = Literal[
    "rd",
    "ratio",
    "paper",
    "algorithm2",
    "released",
    "margin",
    "srd",
    "memory",
    "lesions",
    "scrd",
]
_COMBINED = ("memory", "lesions", "scrd")
_CONTRASTED = ("ratio", "paper", "algorithm2", "released", "margin")
Pooling = Literal["areas", "excess", "mean", "top", "max"]
Window = tuple[float, float] | Literal["auto", "image", "series", "data"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class Config:
    """Settings of a detector.

    The defaults of ``image_size``, ``resize``, ``noise``, ``iterations``, ``batch_size`` and
    ``betas`` are the paper's. Those of ``teacher``, ``objective``, ``window``, ``learning_rate``,
    ``schedule``, ``held_out`` and ``pooling`` are not: the paper has ``wide_resnet50_2``,
    ``"paper"``, a window of 0 to 255 (``"data"`` for 8 bits), 1e-3, ``"constant"``, nothing held
    out, and ``"mean"``. The preset ``paper`` has all of them, see :mod:`scrd.presets`.

    Attributes:
        teacher: backbone, see :func:`scrd.model.teacher.build_teacher`.
        weights: file of teacher weights, ``"random"``, or None for the teacher's own source.
        objective: a name in :data:`scrd.objectives.OBJECTIVES`.
        image_size: side of the square model input in pixels, a multiple of 32, at least 64.
        resize: ``"stretch"`` to the square (the paper) or ``"letterbox"`` (keeps the aspect).
        channels: ``"grey"``, ``"rgb"`` or ``"auto"`` (what the training images are).
        window: what is mapped to [0, 1]: ``"image"``, each image's own 1st to 99th percentile;
            ``"series"``, those of its whole series; ``"data"``, one window from the training
            images (0 to 255 for 8 bits, as the paper has it); (low, high) in source intensity
            units; or ``"auto"``, what suits the kind of the training images, see
            :func:`scrd.training.prepare.window_for` and :func:`scrd.data.intensity.fit_intensity`.
        noise: the perturbations of the noisy path.
        iterations: training steps (the paper: 4,000).
        batch_size: images a step.
        learning_rate: of Adam (the paper: 1e-3; RD4AD's code: 5e-3).
        schedule: ``"cosine"`` lets the learning rate fall to zero, ``"constant"`` is the paper's.
        betas: of Adam.
        noisy_statistics: whether the noisy features pass bottleneck and student too, after the
            clean ones, and move the running statistics of their BatchNorms, as in the authors'
            released code; nothing else comes of that pass. For objectives that contrast the
            student with noisy features.
        seed: of everything that is drawn.
        precision: Fabric's precision; ``"auto"`` is bf16-mixed on a GPU that has it, else fp32.
        deterministic: whether a GPU's convolutions take algorithms that give the same bits each
            time; else cuDNN tries them out and takes the fastest.
        held_out: share of the training normals kept from training, by group; None for a quarter,
            or more where that is too few groups for ``false_alarm_rate``, see
            :func:`scrd.training.prepare.hold_out`. 0 trains on all of them, and gives scores and
            maps alone: no p-value, no threshold.
        false_alarm_rate: the rate of false alarms that the threshold is chosen for.
        promise: what that rate holds for: ``"group"``, images of new groups such as patients;
            ``"image"``, images like the single calibration images, which finds more and promises
            less where groups are few. See ``docs/method.md``.
        pooling: how an anomaly map becomes a score, see ``docs/method.md``.
        smoothing: standard deviation, in pixels of the model input, of the Gaussian that smooths
            anomaly maps, see :class:`scrd.model.smoothing.Smoothing`; 0 for none.
        acquisition: whether ``excess`` allows for the brightness, contrast and sharpness of the
            image: ``"adjust"``, ``"ignore"``, or ``"auto"``, which adjusts for grey images. In
            radiology they belong to exposure and reconstruction; in a colour photograph of a
            lesion they belong to the lesion.
        checkpoint_every: iterations between checkpoints.
        feature_cache_gib: memory that cached clean teacher features may take, in GiB.
        image_cache_gib: memory that decoded images may take, in GiB; beyond it, a file.
    """

    teacher: str = "efficientnet_lite0"
    weights: str | None = None
    objective: ObjectiveName = "scrd"
    image_size: int = 256
    resize: Literal["stretch", "letterbox"] = "stretch"
    channels: Literal["auto", "grey", "rgb"] = "auto"
    window: Window = "auto"
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    iterations: int = 4000
    batch_size: int = 16
    learning_rate: float = 5e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    betas: tuple[float, float] = (0.5, 0.999)
    noisy_statistics: bool = False
    seed: int = 0
    precision: str = "auto"
    deterministic: bool = True
    held_out: float | None = None
    false_alarm_rate: float = 0.05
    promise: Promise = "group"
    pooling: Pooling = "areas"
    smoothing: float = 0.0
    acquisition: Literal["auto", "adjust", "ignore"] = "auto"
    checkpoint_every: int = 200
    feature_cache_gib: float = 4.0
    image_cache_gib: float = 4.0

    def __post_init__(self) -> None:
        objectives = get_args(ObjectiveName)
        _require(
            self.objective in objectives,
            f"unknown objective {self.objective!r}: choose one of {', '.join(objectives)}",
        )
        _require(
            self.image_size >= 64 and self.image_size % 32 == 0,
            f"the image size must be a multiple of 32 and at least 64, not {self.image_size}",
        )
        _require(
            self.resize in ("stretch", "letterbox"),
            f"resize must be stretch or letterbox, not {self.resize!r}",
        )
        _require(
            self.channels in ("auto", "grey", "rgb"),
            f"channels must be auto, grey or rgb, not {self.channels!r}",
        )
        _require(
            self.pooling in get_args(Pooling),
            f"pooling must be areas, excess, mean, top or max, not {self.pooling!r}",
        )
        _require(
            self.pooling != "excess" or self.objective not in _COMBINED,
            f"excess pools the distances of a student, and {self.objective} has none: choose "
            "areas, mean, top or max, or another objective",
        )
        _require(
            self.acquisition in ("auto", "adjust", "ignore"),
            f"acquisition must be auto, adjust or ignore, not {self.acquisition!r}",
        )
        _require(
            self.schedule in ("cosine", "constant"),
            f"schedule must be cosine or constant, not {self.schedule!r}",
        )
        _require(
            self.window in ("auto", "image", "series", "data")
            if isinstance(self.window, str)
            else self.window[0] < self.window[1],
            f"a window is auto, image, series, data, or low < high, not {self.window}",
        )
        for name in ("iterations", "batch_size", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1")
        _require(self.batch_size >= 2, "batch_size must be at least 2: BatchNorm needs a batch")
        _require(
            self.held_out is None or 0 <= self.held_out < 1,
            "held_out must be at least 0 and less than 1",
        )
        _require(
            not self.noisy_statistics or self.objective in _CONTRASTED,
            f"noisy_statistics needs noisy features beside a student, and {self.objective} has "
            f"none: it goes with {', '.join(_CONTRASTED)}",
        )
        _require(
            0 <= self.smoothing < float("inf"),
            f"smoothing must be at least 0 and finite, not {self.smoothing}",
        )
        _require(
            not self.smoothing or self.resize == "stretch",
            "smoothing would blur the padding of a letterbox into the map: it needs the resize "
            "stretch",
        )
        _require(0 < self.false_alarm_rate < 1, "false_alarm_rate must lie between 0 and 1")
        _require(
            self.promise in ("group", "image"),
            f"promise must be group or image, not {self.promise!r}",
        )
        _require(self.learning_rate > 0, "learning_rate must be positive")
        _require(self.seed >= 0, "seed must not be negative")
