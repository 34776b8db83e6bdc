"""One value a patient or study: images of one are alike, and no martingale allows for that."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrd.data.covariates import ACQUISITION
from scrd.monitor.stream import Image
from scrd.scoring.calibration import Calibration

QUANTITIES = ("score", *ACQUISITION)
"""What is watched of an image."""


@dataclass(frozen=True)
class Sample:
    """Values of images no two of which are of one patient or study, as far as that is known.

    Attributes:
        values: by quantity, see ``QUANTITIES``, (N,) float64 each; those that are known of all.
        images: the images, where they come from a stream.
        repeated: how many images were left out because their study had come before.
    """

    values: Mapping[str, NDArray[np.float64]]
    images: tuple[Image, ...] = ()
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.values["score"])


def one_each(groups: Sequence[Hashable], generator: np.random.Generator) -> list[int]:
    """Draw one member of each group.

    Args:
        groups: (M,), group of each member.
        generator: from which one number is drawn a group, in the order in which groups first
            appear: what follows later changes nothing of what came before.

    Returns:
        Positions in ``groups``, in that order.
    """
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    drawn = generator.random(len(members)).tolist()
    return [found[int(u * len(found))] for u, found in zip(drawn, members.values(), strict=True)]


def of_stream(
    images: Sequence[Image], generator: np.random.Generator, before: Set[str] = frozenset()
) -> Sample:
    """Draw one image a study; an image of no known study is one by itself.

    A study that comes again in a later table, as when it is scored anew, counts at its first time.

    Args:
        images: in the order of arrival.
        generator: see :func:`one_each`.
        before: studies that came before the stream, as those of a reference.
    """
    first: dict[str, int] = {}
    usable = [
        image
        for image in images
        if not image.study
        or image.study not in before
        and first.setdefault(image.study, image.table) == image.table
    ]
    groups = [image.study or i for i, image in enumerate(usable)]
    drawn = tuple(usable[i] for i in one_each(groups, generator))
    values = {"score": np.array([image.score for image in drawn])}
    if all(image.covariates is not None for image in drawn):
        for name in ACQUISITION:
            values[name] = np.array([getattr(image.covariates, name) for image in drawn])
    return Sample(values, drawn, len(images) - len(usable))


def of_calibration(calibration: Calibration, generator: np.random.Generator) -> Sample:
    """Draw one calibration normal a group.

    Args:
        calibration: of the model.
        generator: see :func:`one_each`.
    """
    drawn = one_each(calibration.groups, generator)
    known = {name: getattr(calibration.acquisition, name) for name in ACQUISITION}
    values = {"score": calibration.scores, **{n: v for n, v in known.items() if v}}
    return Sample({name: np.array(found)[drawn] for name, found in values.items()})
