"""What a rate of false alarms promises: of whom it holds, and how many normals it takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal

Promise = Literal["group", "image"]
"""``group``: for images of new groups, such as patients, however alike the images of one group
are. ``image``: for images that are exchangeable with the single calibration images."""


UNCALIBRATED = (
    "this model gives scores and maps, but no p-values, and flags nothing: no normals were held "
    "out to calibrate it (held_out is 0); train it with a share of them held out, as is the default"
)
"""What follows where nothing was held out, and the way out."""


def looks(groups: Sequence[Hashable], promise: Promise) -> list[int]:
    """Which independent look at normality each calibration image belongs to.

    Args:
        groups: (M,), group of each image.
        promise: ``group``: a group is one look. ``image``: every image is one by itself.

    Returns:
        (M,), running numbers from 0, in the order in which the looks first appear.
    """
    if promise == "image":
        return list(range(len(groups)))
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]


def looks_needed(false_alarm_rate: float) -> int:
    """How many looks allow a p-value of at most ``false_alarm_rate``."""
    count = max(1, math.floor(1 / false_alarm_rate) - 2)
    while 1 / (count + 1) > false_alarm_rate:
        count += 1
    return count


def too_few(count: int, false_alarm_rate: float, promise: Promise = "group") -> str | None:
    """Says that calibration normals are too few for a rate of false alarms; None if they are not.

    Args:
        count: of looks, see :func:`looks`.
        false_alarm_rate: in (0, 1).
        promise: what the rate is to hold for.
    """
    needed = looks_needed(false_alarm_rate)
    if count >= needed:
        return None
    if not count:
        return UNCALIBRATED
    held_out = "held-out groups of normals" if promise == "group" else "held-out normals"
    return (
        f"this model can flag nothing: {count} {held_out} calibrate it, and a "
        f"false-alarm rate of {false_alarm_rate:g} needs at least {needed}"
    )


def groups_to_hold_out(groups: int, false_alarm_rate: float) -> list[int]:
    """The least numbers of groups to hold out for a rate of false alarms, the best first.

    With just the needed ones, :func:`looks_needed`, 1/f - 1 for a rate f, the threshold lies
    above every calibration image. Twice as fine a step, 2/f - 1 groups, lets one group's worth of
    them lie above it; more than that are not worth the normals that they keep from training. The
    groups that calibrate are never more than half.

    Args:
        groups: all there are.
        false_alarm_rate: f, in (0, 1).

    Returns:
        From the best number down to the one that is needed; then 1, for what no number can
        promise.
    """
    needed = looks_needed(false_alarm_rate)
    best = min(looks_needed(false_alarm_rate / 2), groups // 2)
    return [*range(best, needed - 1, -1), 1]


def worst_rate(groups: Sequence[Hashable], false_alarm_rate: float, promise: Promise) -> float:
    """The highest rate of false alarms on images of new groups, on average over calibrations.

    Put the new group among the G calibration groups, which it is exchangeable with: n images on
    average, the largest r · n. Let f be the rate, and s the lowest score in the pool that is
    flagged when its own group is the new one. Every other flagged image scores at least s. So
    those outside of its group are no more than the threshold lets lie above it, and those inside
    no more than r · n. Of all (G + 1) · n this is a share of

        f + (1 - f) · r / (G + 1)            ``image``
        f + (1 - f) · (r - 1) / G            ``group``: f itself where groups are of one size

    which is reached only where the images of a group all score alike.

    Args:
        groups: (M,), group of each calibration image; their sizes stand for those to come.
        false_alarm_rate: f, in (0, 1).
        promise: what the threshold was made for.
    """
    sizes = Counter(groups).values()
    count, ratio = len(sizes), max(sizes) * len(sizes) / len(groups)
    excess = ratio / (count + 1) if promise == "image" else (ratio - 1) / count
    return false_alarm_rate + (1 - false_alarm_rate) * excess


def promised(groups: Sequence[Hashable], false_alarm_rate: float, promise: Promise) -> str:
    """What a threshold promises, and of which images, in words.

    Args:
        groups: (M,), group of each calibration image.
        false_alarm_rate: in (0, 1).
        promise: what the threshold was made for.
    """
    rate, worst = false_alarm_rate, worst_rate(groups, false_alarm_rate, promise)
    if promise == "group":
        unequal = f" (at worst {worst:.2g}, since groups differ in size)" * (worst > 1.001 * rate)
        return (
            "of normal images of new groups, such as patients, a share of "
            f"{rate:g} or less is flagged on average{unequal}"
        )
    return (
        f"a share of {rate:g} or less is flagged on average of normal images that are exchangeable "
        "with the single calibration images; of images of new groups, such as patients, it may be "
        f"up to {worst:.2g}, the more the images of one group are alike"
    )
