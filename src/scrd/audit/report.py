"""What a check of a data set found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from scrd.audit.confounds import Confound


@dataclass(frozen=True)
class Unreadable:
    """A file of the manifest that is missing or cannot be read, and why."""

    name: str
    reason: str
    missing: bool


@dataclass(frozen=True)
class OddMark:
    """A mask or a box that does not say clearly where the lesion is.

    Attributes:
        name: Of the image that it belongs to.
        file: Name of the mask; of the image for a box.
        reason: What is odd.
        used: Whether `scrd eval` measures with it all the same.
    """

    name: str
    file: str
    reason: str
    used: bool


@dataclass(frozen=True)
class Property:
    """One property of the files, such as their size.

    Attributes:
        name: What is counted.
        counts: Images per value, most frequent first.
        odd: Names of the images that differ from the most frequent value, with their value.
    """

    name: str
    counts: dict[str, int]
    odd: dict[str, str]


@dataclass(frozen=True)
class Link:
    """Two files of which one is a copy of the other.

    Attributes:
        first: Name of one file.
        second: Name of the other.
        relation: "same file", "same pixels", or what turns the first into the second.
        similarity: Correlation of their textures, in [0, 1]; 1 for equal pixels.
        crosses: Whether one is in train and the other in test.
    """

    first: str
    second: str
    relation: str
    similarity: float
    crosses: bool


@dataclass(frozen=True)
class Family:
    """Files that are copies of one another, directly or by way of further copies.

    Attributes:
        train: Names of the files in train.
        test: Names of the files in test.
        links: Which is a copy of which.
        one_group: Whether the manifest says that all of them belong to one group or patient.
        label_conflict: Whether some of them are labelled normal and others abnormal.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    links: tuple[Link, ...]
    one_group: bool
    label_conflict: bool

    @property
    def is_leak(self) -> bool:
        """Whether copies are in both splits."""
        return bool(self.train and self.test)


@dataclass(frozen=True)
class SplitGroup:
    """A group or patient with files in both splits."""

    group: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """The findings of `check_dataset`.

    Attributes:
        root: The data set's folder.
        images: How many the manifest lists.
        unreadable: Files that are missing or cannot be read.
        marks: Masks and boxes that are odd or cannot be used.
        properties: Formats, sizes, colour modes and bit depths.
        families: Sets of copies, exact and near, within and across splits.
        split_groups: Groups or patients in both splits.
        confounds: What plain numbers say about class and split.
        understood: How the manifest or folder was understood, and what of it was not.
        notes: The findings that matter, in words.
    """

    root: str
    images: int
    unreadable: tuple[Unreadable, ...]
    marks: tuple[OddMark, ...]
    properties: tuple[Property, ...]
    families: tuple[Family, ...]
    split_groups: tuple[SplitGroup, ...]
    confounds: tuple[Confound, ...]
    understood: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def leaks(self) -> tuple[Family | SplitGroup, ...]:
        """What is in both splits: copies, then groups or patients."""
        return (*(family for family in self.families if family.is_leak), *self.split_groups)

    @property
    def has_leak(self) -> bool:
        """Whether anything of train is in test."""
        return bool(self.leaks)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"has_leak": self.has_leak, **asdict(self)}
