"""The train normals of a data set: read, divided, and their rules fixed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scrd.config import Config
from scrd.data.cache import ImageStack, load_images
from scrd.data.contract import Contract, learn_contract
from scrd.data.intensity import Scope, fit_intensity
from scrd.data.manifest import Manifest, Record, read_manifest
from scrd.data.preprocess import Preprocessing
from scrd.data.reading import read_image, read_info
from scrd.data.split import split_by_group
from scrd.errors import ImageError
from scrd.system.progress import counting
from scrd.training.log import TrainingError

INTENSITY_SAMPLE = 256
"""Training images from which the intensity rule is fixed."""
CONTRACT_SAMPLE = 1000
"""Training images whose headers tell what the model knows."""


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
    with counting("learning sizes and intensities", None, progress):
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
