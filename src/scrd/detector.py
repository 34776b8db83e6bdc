"""The detector: what a Python user holds.

The only module that knows the whole way of an image: data → model → scoring → calibration.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from scrd import __version__
from scrd.calibration import Calibration
from scrd.config import Config, from_dict
from scrd.data.cache import ImageStack, iter_batches
from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing, content_masks, map_to_source
from scrd.data.reading import ImageError
from scrd.data.source import AnySource, Source, as_source
from scrd.errors import ConfigError
from scrd.fitting import Prepared, fit
from scrd.model import SCRD, build_model
from scrd.model_card import model_card
from scrd.progress import counting
from scrd.runtime import resolve_device
from scrd.scoring import infer
from scrd.storage import (
    Contents,
    ModelFolderError,
    read_fingerprint,
    read_model_folder,
    write_model_folder,
)
from scrd.training import LogEntry

if TYPE_CHECKING:
    from scrd.evaluation import Evaluation


@dataclass(frozen=True)
class Scored:
    """The answer for one image.

    Attributes:
        source: the image.
        score: raw, larger is more anomalous; see :data:`scrd.scoring.POOLINGS`.
        p_value: conformal, in (0, 1]: a normal image has one this small or smaller with at most
            this probability.
        flag: the p-value is at most the chosen false-alarm rate.
        statistics: the score under every pooling: ``excess``, in standard deviations of normals
            (``excess_uniform``: with equal scale weights; ``excess_plain``: and not allowing for
            the image's acquisition), and ``mean``, ``top`` and
            ``max`` of the anomaly map, in [0, 2].
        scale_weights: α, one a scale, sum 1.
        input_map: anomaly map at the model's resolution, (S, S), float32, in [0, 2].
        source_size: (height, width) of the source image in pixels.
        doubts: what speaks against its being of the training images' kind.
    """

    source: Source
    score: float
    p_value: float
    flag: bool
    statistics: Mapping[str, float]
    scale_weights: tuple[float, ...]
    input_map: NDArray[np.float32]
    source_size: tuple[int, int]
    doubts: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path


class Detector:
    """A trained, calibrated anomaly detector.

    Make one with :meth:`fit` or :meth:`load`.

    Attributes:
        config: the settings it was made with.
        preprocessing: how a source image becomes model input.
        calibration: what held-out normals said.
        provenance: what it was trained on, with which versions; plain JSON types.
        contract: which images it knows; others are refused or doubted.
        fingerprint: SHA-256 of the saved model, in hexadecimal; None before it is saved.
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
        contract: Contract,
        log: Sequence[LogEntry] = (),
        failures: Sequence[ImageError] = (),
        device: str = "auto",
        fingerprint: str | None = None,
    ) -> None:
        self.device = resolve_device(device)
        # as in training: another memory format rounds otherwise, and scores would differ
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.config = config
        self.preprocessing = preprocessing
        self.calibration = calibration
        self.provenance = provenance
        self.contract = contract
        self.fingerprint = fingerprint
        self.log = tuple(log)
        self.failures = tuple(failures)

    @classmethod
    def fit(
        cls,
        data: str | Path | Prepared,
        config: Config | None = None,
        *,
        work: str | Path | None = None,
        resume: bool = False,
        device: str = "auto",
        progress: bool = False,
    ) -> Detector:
        """Train on the normals of a data set's train split and calibrate on held-out ones.

        The train normals are divided by group (patient) into two parts: one trains, one
        calibrates. Neither the test split nor a label is looked at.

        Args:
            data: folder or manifest, see :func:`scrd.data.manifest.read_manifest`; or what
                :func:`scrd.fitting.prepare` made of it.
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
        fitted = fit(data, config, work=work, resume=resume, device=device, progress=progress)
        return cls(**vars(fitted), device=resolve_device(device).type)

    def score(
        self,
        images: Sequence[AnySource],
        *,
        batch_size: int = 16,
        progress: bool = False,
        any_kind: bool = False,
    ) -> Iterator[Scored | ImageError]:
        """Score images.

        Args:
            images: paths of files that hold one image each, or what
                :func:`scrd.data.series.list_sources` found; read ahead in threads, never all at
                once.
            batch_size: images a batch.
            progress: show a progress bar on standard error.
            any_kind: score also what ``contract`` refuses, with the reason among its doubts.

        Yields:
            One result an image, in order: :class:`Scored`, or the :class:`ImageError` that says
            why it could not be read, or is not what the model knows.
        """
        files = [as_source(image) for image in images]
        with counting("scoring", len(files), progress) as advance:
            done = 0
            for batch in iter_batches(
                files,
                self.preprocessing,
                batch_size=batch_size,
                contract=self.contract,
                any_kind=any_kind,
            ):
                results: dict[int, Scored | ImageError] = dict(self.score_stack(files, batch))
                count = len(batch.index) + len(batch.failures)
                missing = [i for i in range(done, done + count) if i not in results]
                results.update(zip(missing, batch.failures, strict=True))
                for i in range(done, done + count):
                    yield results[i]
                done += count
                advance(done)

    def score_stack(
        self, sources: Sequence[AnySource], batch: ImageStack
    ) -> Iterator[tuple[int, Scored]]:
        """Score images that are read already, all at once.

        Args:
            sources: what the stack's ``index`` points into.
            batch: images of this detector's ``preprocessing``.

        Yields:
            Position in ``sources`` and result, for each image of the stack.
        """
        if not batch.index:
            return
        content = content_masks(batch.source_sizes, self.preprocessing)
        found = infer(self.model, batch.images, content)
        statistics = found.statistics(content)
        scores = statistics[self.calibration.pooling].double().numpy()
        p_values = self.calibration.p_values(scores)
        for row, i in enumerate(batch.index):
            yield (
                i,
                Scored(
                    source=as_source(sources[i]),
                    score=float(scores[row]),
                    p_value=float(p_values[row]),
                    flag=bool(scores[row] >= self.calibration.threshold),
                    statistics={name: float(s[row]) for name, s in statistics.items()},
                    scale_weights=tuple(found.scale_weights[row].tolist()),
                    input_map=found.maps[row].numpy(),
                    source_size=batch.source_sizes[row],
                    doubts=batch.doubts[row],
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
                "contract": dataclasses.asdict(self.contract),
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
        card = model_card(
            self.config, self.preprocessing, self.calibration, self.provenance, self.contract
        )
        write_model_folder(Path(folder), contents, log_lines=lines, card=card, replace=replace)
        self.fingerprint = read_fingerprint(Path(folder))

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
            model = build_model(
                config.teacher, "deferred", raw["student_rectified"], preprocessing.image_size
            )
            model.load_state_dict(contents.weights)
            threshold = contents.calibration["threshold"]
            calibration = from_dict(
                Calibration,
                {**contents.calibration, "threshold": math.inf if threshold is None else threshold},
            )
            contract = from_dict(Contract, raw["contract"])
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
        return cls(
            model,
            config,
            preprocessing,
            calibration,
            provenance,
            contract,
            log,
            device=device,
            fingerprint=read_fingerprint(Path(folder)),
        )
