"""The detector: what a Python user holds.

The only module that knows the whole way of an image: data → model → scoring → calibration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from scrd.config import Config
from scrd.data.contract import Contract
from scrd.data.preprocess import Preprocessing
from scrd.errors import ConfigError, ImageError
from scrd.model import SCRD, build_model
from scrd.model.constants import Constants
from scrd.model.fingerprint import Fingerprint, require_package, require_same_answer
from scrd.model.runner import Runner
from scrd.model.weights import TeacherError
from scrd.report.figures import training_curve
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Inferred, Scorer
from scrd.storage.card import model_card
from scrd.storage.model_folder import (
    Contents,
    ModelFolderError,
    read_fingerprint,
    read_model_folder,
    write_model_folder,
)
from scrd.storage.plain import from_plain, to_plain
from scrd.system.devices import resolve_device, resolve_devices, versions
from scrd.system.version import __version__
from scrd.training.journal import to_lines
from scrd.training.log import LogEntry

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

    from scrd.data.manifest import Manifest
    from scrd.evaluation.test_set import Evaluation
    from scrd.presets.files import Preset
    from scrd.training.prepare import Prepared


class Detector(Scorer):
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
        devices: int = 1,
        fingerprint: str | None = None,
    ) -> None:
        self.device, *more = resolve_devices(device, devices)
        # as in training: another memory format rounds otherwise, and scores would differ
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._run = Runner(self.model, more)
        self.together = self._run.together
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
        data: str | Path | Manifest | Prepared,
        config: Config | None = None,
        *,
        work: str | Path | None = None,
        resume: bool = False,
        device: str = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        progress: bool = False,
        logger: Logger | None = None,
        preset: Preset | None = None,
        watch: Callable[[int, SCRD], None] | None = None,
    ) -> Detector:
        """Train on the normals of a data set's train split and calibrate on held-out ones.

        The train normals are divided by group (patient) into two parts: one trains, one
        calibrates, unless ``config.held_out`` is 0. Neither the test split nor a label is looked
        at.

        Args:
            data: folder or manifest, see :func:`scrd.data.manifest.read_manifest`, or what it
                gave; or what :func:`scrd.training.prepare.prepare` made of it.
            config: settings; the default is the paper's budget.
            work: folder for checkpoints and for the log, which grows there as ``training.jsonl``
                and ``training.svg``; made if needed. None keeps neither.
            resume: go on from the checkpoint in ``work``, if there is one. The result is the
                same, bit for bit on the same device, as without the interruption.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            devices: how many of them train together on each node, a process each, see
                :func:`scrd.system.devices.make_fabric`. All return the same detector; only the one
                of which :func:`scrd.system.devices.is_main_process` holds should save it.
            num_nodes: machines that train together.
            progress: tell on standard error how far the work is.
            logger: of Lightning Fabric's kind, such as its ``TensorBoardLogger``; is given the
                settings and each entry of the log.
            preset: where the settings came from; named in the provenance and on the card, with
                the settings that are not its own.
            watch: called with the number of iterations done and the network, before the first and
                after each; it leaves the mode of the network as it was.

        Raises:
            ManifestError: the data set is not described well.
            TeacherError: the teacher or its weights cannot be had.
            TrainingError: too few images or groups, a diverging loss, a foreign checkpoint.
            TrainingInterrupted: Ctrl-C or SIGTERM in a training with ``work``, in the main thread
                of a single process; the step in hand was finished and saved.
        """
        from scrd.training.fit import fit  # what trains is slow to import, and scoring needs none

        fitted = fit(
            data,
            config,
            work=work,
            resume=resume,
            device=device,
            devices=devices,
            num_nodes=num_nodes,
            progress=progress,
            logger=logger,
            preset=preset,
            draw=training_curve,
            watch=watch,
        )
        return cls(**vars(fitted), device=resolve_device(device).type)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See :attr:`scrd.scoring.scorer.Scorer.settings`."""
        return {
            "config": to_plain(self.config),
            "trained": dict(self.provenance),
            "evaluated": {"device": str(self.device), "versions": versions()},
        }

    def infer(
        self, images: NDArray[np.float32], content: NDArray[np.bool_], *, maps: bool = True
    ) -> Inferred:
        """See :meth:`scrd.scoring.scorer.Scorer.infer`."""
        found = self._run(torch.from_numpy(images), torch.from_numpy(content), maps=maps)
        statistics = {n: s.double().numpy() for n, s in found.statistics.items()}
        return Inferred(found.maps.numpy(), statistics, found.scale_weights.numpy())

    def evaluate(
        self, data: str | Path | Manifest, *, batch_size: int = 16, progress: bool = False
    ) -> Evaluation:
        """Score the test split of a data set against its labels.

        See :func:`scrd.evaluation.test_set.evaluate`, also for what is raised.
        """
        from scrd.evaluation.test_set import evaluate

        return evaluate(self, data, batch_size=batch_size, progress=progress)

    def save(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the model folder, whole or not at all; see :mod:`scrd.storage.model_folder`.

        Raises:
            ModelFolderError: the place is taken.
        """
        contents = Contents(
            config={
                "scrd_version": __version__,
                "config": to_plain(self.config),
                "preprocessing": to_plain(self.preprocessing),
                "student_rectified": self.model.rectified,
                "constants": to_plain(self.model.constants),
                "contract": to_plain(self.contract),
                "provenance": self.provenance,
            },
            calibration=to_plain(self.calibration),
            weights=self.model.state_dict(),
        )
        card = model_card(
            self.config, self.preprocessing, self.calibration, self.provenance, self.contract
        )
        write_model_folder(
            Path(folder), contents, log_lines=to_lines(self.log), card=card, replace=replace
        )
        self.fingerprint = read_fingerprint(Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", devices: int = 1) -> Detector:
        """Read a model folder and verify it.

        Args:
            folder: the model folder.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            devices: how many GPUs score together.

        Raises:
            ConfigError: there are not so many devices.
            ModelFolderError: missing, damaged, of an unknown format, or with a teacher that is not
                installed here or computes something else now, see
                :mod:`scrd.model.fingerprint`.
        """
        contents = read_model_folder(Path(folder))
        raw = contents.config
        try:
            config = from_plain(Config, raw["config"])
            preprocessing = from_plain(Preprocessing, raw["preprocessing"])
            provenance = raw["provenance"]
            teacher = provenance.get("teacher")  # absent from models of 0.2.0
            known = from_plain(Fingerprint, teacher) if teacher else None
            if known:
                require_package(config.teacher, known)
            model = build_model(
                config.teacher,
                "deferred",
                raw["student_rectified"],
                preprocessing.image_size,
                from_plain(Constants, raw["constants"]),
                objective=config.objective,
                smoothing=config.smoothing,
            )
            model.load_state_dict(contents.weights)
            if known:
                require_same_answer(model.teacher, known, preprocessing.image_size)
            calibration = from_plain(Calibration, contents.calibration)
            contract = from_plain(Contract, raw["contract"])
        except TeacherError as e:
            raise ModelFolderError(f"{folder}: {e}") from e
        except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as e:
            raise ModelFolderError(
                f"{Path(folder) / 'config.json'}: does not describe this model "
                f"({type(e).__name__}: {e})"
            ) from e
        path = Path(folder) / "training.jsonl"
        try:
            log = [from_plain(LogEntry, json.loads(x)) for x in path.read_text().splitlines()]
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
            devices=devices,
            fingerprint=read_fingerprint(Path(folder)),
        )
