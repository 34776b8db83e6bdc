"""The train normals of a data set: read, divided, and their rules fixed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.config import Config
from scrd.data.cache import ImageStack, load_images
from scrd.data.contract import Contract, learn_contract
from scrd.data.intensity import Scope, fit_intensity, is_range_of_a_depth
from scrd.data.manifest import Manifest, read_manifest
from scrd.data.plausibility import learn_plausible, shifted
from scrd.data.preprocess import Preprocessing
from scrd.data.reading import read_image, read_info
from scrd.data.record import Record
from scrd.data.sample import even
from scrd.data.split import split_by_group
from scrd.errors import ImageError
from scrd.scoring.promise import groups_to_hold_out, looks, too_few
from scrd.system.console import err
from scrd.system.progress import counting
from scrd.training.log import TrainingError

INTENSITY_SAMPLE = 256
"""Training images from which the intensity rule is fixed."""
CONTRACT_SAMPLE = 1000
"""Training images whose headers tell what the model knows."""
HELD_OUT = 0.25
"""Share of the train normals that is held out at least, where none is asked for."""
_LEAST_DISTINCT = 5
_ALIKE = 0.002  # of the intensity window, on average: copies of one image, stored anew


@dataclass(frozen=True)
class Prepared:
    """The train normals of a data set, read and divided; several detectors can be fitted on it.

    Attributes:
        manifest: of the data set.
        preprocessing: fixed on the images that train.
        fitting: images that train.
        calibrating: held-out images that calibrate; none where the share is 0.
        groups: group of each image of ``calibrating``; one without a group is its own.
        series: series of each; an image of no series is one by itself.
        studies: study of each.
        contract: the kinds of the images of ``fitting``.
        doubts: images of both that are unlike most others in their grey values.
    """

    manifest: Manifest
    preprocessing: Preprocessing
    fitting: ImageStack
    calibrating: ImageStack
    groups: tuple[str, ...]
    series: tuple[str, ...]
    studies: tuple[str, ...]
    contract: Contract
    doubts: tuple[ImageError, ...] = ()

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
        config: settings; those that act here are ``seed``, ``held_out``,
            ``false_alarm_rate``, ``promise``, ``image_size``, ``resize``, ``channels``,
            ``window`` and ``image_cache_gib``.
        folder: for images that exceed the memory limit.
        progress: show progress bars on standard error.

    Raises:
        ManifestError: the data set is not described well.
        TrainingError: too few images or groups, a window that does not fit them, or images that
            hold nothing or are all alike.
    """
    manifest = data if isinstance(data, Manifest) else read_manifest(data, for_training=True)
    fitting, calibrating = hold_out(manifest.train_normals, config)
    seen = looks([r.group or r.name for r in calibrating], config.promise)
    silent = too_few(len(set(seen)), config.false_alarm_rate, config.promise)
    if silent and progress:  # said before the work, which may take hours
        err.print("[bold yellow]warning:[/]", end=" ", markup=True)
        err.print(silent)
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
    _refuse_degenerate(manifest.root, [stacks[0], *([stacks[1]] if calibrating else [])])
    common_unit = (
        preprocessing.intensity.scope == "data" or not set(contract.units) & _NO_COMMON_UNIT
    )
    contract = dataclasses.replace(
        contract,
        plausible=learn_plausible(even(stacks[0].facts, CONTRACT_SAMPLE), common_unit=common_unit),
    )
    held_out = [calibrating[i] for i in stacks[1].index]
    return Prepared(
        manifest,
        preprocessing,
        stacks[0],
        stacks[1],
        groups=tuple(r.group or r.name for r in held_out),
        series=tuple(r.series_name for r in held_out),
        studies=tuple(r.study for r in held_out),
        contract=contract,
        doubts=_doubts((fitting, calibrating), stacks) if common_unit else (),
    )


def _doubts(
    parts: Sequence[Sequence[Record]], stacks: Sequence[ImageStack]
) -> tuple[ImageError, ...]:
    """The training images whose grey values do not lie where those of most others do."""
    records = [part[i] for part, stack in zip(parts, stacks, strict=True) for i in stack.index]
    facts = [one for stack in stacks for one in stack.facts]
    low, high = (float(np.median([getattr(f, end) for f in facts])) for end in ("low", "high"))
    return tuple(
        ImageError(
            records[i].path,
            f"grey values run from {facts[i].low:.4g} to {facts[i].high:.4g}; in most training "
            f"images from about {low:.4g} to {high:.4g}",
        )
        for i in shifted(facts)
    )


def _refuse_degenerate(root: Path, stacks: Sequence[ImageStack]) -> None:
    """Raise TrainingError where the normals cannot teach what normal looks like."""
    failures = [f for stack in stacks for f in stack.failures]
    if not all(len(stack.index) for stack in stacks):
        raise TrainingError(
            f"{root}: too few readable normal images; the first problem: {failures[0]}"
        )
    facts = [one for stack in stacks for one in stack.facts]
    empty = sum(one.constant for one in facts)
    if 2 * empty > len(facts):
        raise TrainingError(
            f"{root}: {empty} of {len(facts)} training images hold one grey value each: there is "
            "nothing to learn"
        )
    first = stacks[0].images[0]
    if all(float(np.abs(x - first).mean()) < _ALIKE for stack in stacks for x in stack.images):
        raise TrainingError(f"{root}: all {len(facts)} training images are copies of one image")
    distinct: set[int] = set()
    for image in (x for stack in stacks for x in stack.images):
        distinct.add(hash(image.tobytes()))
        if len(distinct) >= _LEAST_DISTINCT:
            return
    raise TrainingError(
        f"{root}: {len(distinct)} different normal images; at least {_LEAST_DISTINCT} are needed"
        + (f"; the first problem: {failures[0]}" if failures else "")
    )


def hold_out(normals: Sequence[Record], config: Config) -> tuple[list[Record], list[Record]]:
    """Divide train normals by group into those that train and those that calibrate.

    Without a share in ``config.held_out`` a quarter of the images is held out, or more where it
    takes more to have :func:`scrd.scoring.promise.groups_to_hold_out` groups, but less than half.
    The order of the groups is drawn first; all this only says where it is cut. Where the share is
    0 all of them train, in their order.

    Raises:
        TrainingError: too few groups for two parts.
    """
    if config.held_out == 0:
        return list(normals), []
    groups = [r.group for r in normals]
    share, choices = config.held_out, [1]
    if share is None:
        count = len(set(groups) - {None}) + groups.count(None)
        share, choices = HELD_OUT, groups_to_hold_out(count, config.false_alarm_rate)
    try:
        for least in choices:
            parts = split_by_group(groups, (1 - share, share), config.seed, least=(1, least))
            if len(parts[1]) < len(parts[0]):
                break
    except ValueError as e:
        raise TrainingError(f"the train normals cannot be held out: {e}") from e
    fitting, calibrating = ([normals[i] for i in part] for part in parts)
    return fitting, calibrating


def _learn_contract(records: Sequence[Record]) -> Contract:
    """Read the headers of an even sample of the training images."""
    infos = []
    for record in even(records, CONTRACT_SAMPLE):
        with contextlib.suppress(ImageError):
            infos.append(read_info(record.source))
    return learn_contract(infos)


def _fix_preprocessing(
    records: Sequence[Record], config: Config, contract: Contract
) -> Preprocessing:
    """Fix the intensity rule on an even sample of the training images."""
    sample = _readable(even(records, INTENSITY_SAMPLE))
    first = next(sample, None)
    if first is None:
        raise TrainingError(f"none of the training images can be read, e.g. {records[0].path}")
    try:
        window = window_for(contract) if config.window == "auto" else config.window
        if "HU" in contract.units and not isinstance(window, str) and is_range_of_a_depth(window):
            raise ValueError(
                f"the window {window[0]:g},{window[1]:g} is a range of pictures, and the values "
                "of these images are HU, such as -1000 for air: give it in HU"
            )
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


_NO_COMMON_UNIT = {"rescaled", "NIfTI"}
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
