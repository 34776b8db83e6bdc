"""Seeded splits that keep together what belongs together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def split_by_group(
    groups: Sequence[str | None],
    fractions: Sequence[float],
    seed: int,
    least: Sequence[int] | None = None,
) -> list[NDArray[np.int64]]:
    """Split images into parts by whole groups, such as patients.

    The groups are sorted, shuffled, laid end to end and cut at the edges nearest to the wanted
    sizes. Which groups a part receives therefore does not depend on their sizes, and a part is
    off by at most half a group at each cut, unless it would have too few groups otherwise. Named
    groups go to the same parts in whatever order the images come; an image without a group is one
    of its own, known by its position.

    Args:
        groups: For each image its group, or None.
        fractions: Size of each part; they sum to 1.
        seed: Seed of the shuffle.
        least: The least number of groups in each part of a fraction above 0, by default 1.

    Returns:
        For each part the ascending indices of its images, int64. A part of fraction 0 is empty.

    Raises:
        ValueError: The fractions are negative or do not sum to 1, or there are fewer groups than
            the parts must have.
    """
    if any(fraction < 0 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be at least 0 and sum to 1: {list(fractions)}")
    members: dict[tuple[str, int], list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(("", index) if group is None else (group, -1), []).append(index)
    least = [1] * len(fractions) if least is None else least
    pairs = list(zip(fractions, least, strict=True))
    counts = [count for fraction, count in pairs if fraction > 0]
    to_fill = sum(counts)
    if len(members) < to_fill:
        cause = (
            f": all {len(groups)} images carry one patient (or group, or study). Where they are of "
            "several patients, as in sets that were anonymised to one Patient ID, name these in "
            "the column 'patient' of a split.csv"
        )
        large = f" of at least {counts} groups" if to_fill > len(counts) else ""
        raise ValueError(
            f"{len(groups)} images in {len(members)} groups cannot be split into {len(counts)} "
            f"parts{large} without tearing a group apart{cause * (len(members) == 1 < len(groups))}"
        )
    names = sorted(members)
    order = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    edges = np.cumsum([0, *(len(members[name]) for name in order)])

    parts: list[NDArray[np.int64]] = []
    start, wanted = 0, 0.0
    for fraction, count in pairs:
        stop = start
        if fraction > 0:
            to_fill -= count
            wanted += fraction * len(groups)
            nearest = int(np.abs(edges - wanted).argmin())
            stop = min(max(nearest, start + count), len(order) - to_fill)
        inside = [index for name in order[start:stop] for index in members[name]]
        parts.append(np.array(sorted(inside), dtype=np.int64))
        start = stop
    return parts
