"""Drawing images with a seed, by whole groups, so that no group is in both splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scrd.data.record import Box
from scrd.datasets.published import SourceError


@dataclass(frozen=True)
class Candidate:
    """An image that may be drawn.

    Attributes:
        path: The file, below the source folder.
        kind: Name of its class.
        split: "train" or "test" where the source has decided, else "".
        owner: The patient or lesion that it shows; None where that is unknown.
        columns: Further cells of its row in the manifest; the same columns for all candidates.
        boxes: Boxes around the anomalies, as in `scrd.data.record.Record`.
    """

    path: Path
    kind: str
    split: str = ""
    owner: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Part:
    """What a protocol wants: so many images of these classes in one split."""

    split: str
    kinds: tuple[str, ...]
    label: int
    images: int

    def admits(self, candidate: Candidate) -> bool:
        """Whether the class fits, and the split where the source has decided."""
        return candidate.kind in self.kinds and candidate.split in ("", self.split)


def check_supply(source: Path, candidates: Sequence[Candidate], parts: Sequence[Part]) -> None:
    """Raise SourceError where the source has fewer images than the parts ask for."""
    for part in parts:
        # parts that draw on the same classes must find enough for all of them together
        for rivals in ([part], [p for p in parts if set(p.kinds) & set(part.kinds)]):
            found = sum(any(p.admits(c) for p in rivals) for c in candidates)
            wanted = sum(p.images for p in rivals)
            if found < wanted:
                raise SourceError(
                    f"{source}: {found} images of {', '.join(part.kinds)} for "
                    f"{' and '.join(p.split for p in rivals)}, {wanted} are needed"
                )


def draw(
    candidates: Sequence[Candidate],
    usable: Iterable[int],
    units: Sequence[str],
    parts: Sequence[Part],
    seed: int,
) -> list[list[int]]:
    """Draw each part by whole units, none of which ends up in both splits.

    Units come in the order of SHA-256(seed, unit), which no version of a library changes and in
    which one unit more or less moves no other. Units larger than what is still missing are
    passed over; if the rest does not suffice, the smallest of them is cut.

    Args:
        candidates: (N) images.
        usable: Indices of those that may be drawn.
        units: (N) the unit of each image.
        parts: (P) what is wanted. Test parts are drawn first; training takes what they leave.
        seed: Seed of the order.

    Returns:
        (P) for each part the indices of its images, ascending; fewer than it asks for where no
        more are left.
    """
    split_of: dict[str, str] = {}
    free = set(usable)
    chosen: list[list[int]] = [[] for _ in parts]
    for number in sorted(range(len(parts)), key=lambda n: parts[n].split != "test"):
        part = parts[number]
        members: dict[str, list[int]] = {}
        for k in sorted(free):
            if part.admits(candidates[k]) and split_of.get(units[k], part.split) == part.split:
                members.setdefault(units[k], []).append(k)
        taken = _fill(members, part.images, seed)
        free.difference_update(taken)
        split_of.update((units[k], part.split) for k in taken)
        chosen[number] = sorted(taken)
    return chosen


def _fill(members: Mapping[str, Sequence[int]], wanted: int, seed: int) -> list[int]:
    """Take whole units until `wanted` images are reached, or there are no more."""
    taken: list[int] = []
    passed_over: list[Sequence[int]] = []
    for unit in sorted(members, key=lambda u: hashlib.sha256(f"{seed} {u}".encode()).digest()):
        if len(taken) + len(members[unit]) <= wanted:
            taken += members[unit]
        else:
            passed_over.append(members[unit])
    if len(taken) < wanted and passed_over:
        taken += min(passed_over, key=len)[: wanted - len(taken)]
    return taken
