"""From a model folder to an exported one."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scrd.data.cache import load_images
from scrd.data.manifest import Manifest, read_manifest
from scrd.data.preprocess import content_masks
from scrd.data.record import Record
from scrd.data.sample import even
from scrd.detector import Detector
from scrd.errors import ConfigError
from scrd.export.card import export_card
from scrd.export.errors import ExportError, package
from scrd.export.folder import CALIBRATION, NETWORK_FILES, building, read_exported, write_index
from scrd.export.graph import write_onnx
from scrd.export.openvino import write_openvino
from scrd.export.parity import LEAST_IMAGES, Parity, measure
from scrd.export.runtime import ExportedScorer
from scrd.storage.plain import to_plain
from scrd.system.progress import counting
from scrd.system.version import __version__

Format = Literal["onnx", "openvino"]

_ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}
_COMPARED = 200
_QUANTISED = 300


def export_model(
    model: str | Path,
    out: str | Path,
    images: str | Path,
    *,
    format: Format = "onnx",
    int8: bool = False,
    progress: bool = False,
) -> Parity:
    """Export a model, run both on real images, and keep the export if they agree.

    Args:
        model: model folder.
        out: folder to write, whole or not at all.
        images: data set, see :func:`scrd.data.manifest.read_manifest`: both are compared on up to
            200 of its test images, or, where it has none, of its normals.
        format: ``onnx``, for ONNX Runtime, or ``openvino``.
        int8: quantise to eight bits, with ranges from up to 300 normals of the train split that
            are not among the compared images. Only for OpenVINO.
        progress: show progress bars on standard error.

    Returns:
        How well they agree.

    Raises:
        ConfigError: no such format, or eight bits for another than OpenVINO.
        ExportError: they do not agree; too few images; the place is taken; a package is absent.
        ManifestError: the data set is not described well.
        ModelFolderError: the model folder cannot be read.
    """
    if format not in _ENGINES:
        raise ConfigError(f"the format is {' or '.join(_ENGINES)}, not {format!r}")
    if int8 and format != "openvino":
        raise ConfigError("eight bits are for --format openvino only")
    engine, precision = _ENGINES[format], "int8" if int8 else "fp32"
    package(engine, "export")  # before the work, not after it
    manifest = read_manifest(images)
    compared, calibrating = choose(manifest)
    detector = Detector.load(model, device="cpu")
    assert detector.fingerprint is not None
    with building(Path(out)) as folder:
        network = folder / NETWORK_FILES[engine][0]
        traced = network.with_suffix(".onnx")
        channels = 3 if detector.preprocessing.intensity.channels == "rgb" else 1
        size = detector.preprocessing.image_size
        with counting("exporting", None, progress):
            write_onnx(detector.model, traced, channels=channels, image_size=size)
            if format == "openvino":
                write_openvino(traced, network, _normals(calibrating, detector) if int8 else ())
                traced.unlink()
        shutil.copyfile(Path(model) / CALIBRATION, folder / CALIBRATION)
        index = {
            "scrd_version": __version__,
            "precision": precision,
            "source": {
                "fingerprint": detector.fingerprint,
                "teacher": detector.config.teacher,
                "objective": detector.config.objective,
            },
            "preprocessing": to_plain(detector.preprocessing),
            "contract": to_plain(detector.contract),
        }
        write_index(folder, engine, index)
        export = ExportedScorer(read_exported(folder))
        parity = measure(detector, export, compared, progress=progress)
        if reasons := parity.failures():
            raise ExportError(
                f"the {precision} export for {engine} does not agree with its model on "
                f"{parity.images} images, and was not kept: " + "; ".join(reasons)
            )
        index["parity"] = {
            "data": manifest.root.name,
            "data_fingerprint": manifest.fingerprint,
            **dataclasses.asdict(parity),
        }
        index["versions"] = {
            name: str(package(name, "export").__version__) for name in ("torch", "onnx", engine)
        }
        write_index(folder, engine, index)
        card = export_card(
            (Path(model) / "card.md").read_text(encoding="utf-8"),
            engine=engine,
            precision=precision,
            data=manifest.root.name,
            parity=parity,
            model=detector.fingerprint,
        )
        (folder / "card.md").write_text(card, encoding="utf-8")
    return parity


def choose(manifest: Manifest) -> tuple[list[Record], list[Record]]:
    """Images to compare on, and normals to quantise with, evenly spread and without overlap."""
    compared = even(manifest.test or manifest.train_normals[::2], _COMPARED)
    taken = {record.name for record in compared}
    rest = [record for record in manifest.train_normals if record.name not in taken]
    return compared, even(rest, _QUANTISED)


def _normals(
    records: Sequence[Record], detector: Detector
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Prepared images, each (1, C, S, S), and their content (1, S, S)."""
    stack = load_images(
        [record.source for record in records], detector.preprocessing, memory_limit=1 << 30
    )
    if len(stack.index) < LEAST_IMAGES:
        raise ExportError(
            f"{len(stack.index)} normals to quantise with; at least {LEAST_IMAGES} are needed"
        )
    content = content_masks(stack.source_sizes, detector.preprocessing)
    return list(zip(stack.images[:, None], content[:, None], strict=True))
