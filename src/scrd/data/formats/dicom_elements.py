"""Values of DICOM elements that may be absent, empty, repeated or nonsense.

What is broken reads as absent, so that one odd element does not cost an image; where a wrong guess
would change pixels, the caller asks with `is_empty`.
"""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from scrd.data.formats.info import Refused


def is_little_endian(dataset: Dataset) -> bool:
    """Whether numbers are stored with their low byte first."""
    return dataset.original_encoding[1] is not False


def is_empty(dataset: Dataset, keyword: str) -> bool:
    """Whether an element is absent or has no value."""
    if keyword not in dataset:
        return True
    content = dataset.get_item(keyword).value
    return content is None or (isinstance(content, (str, bytes)) and not content.strip())


def elements(dataset: Dataset, keyword: str) -> Any:
    """An element's value, whatever its type; None where it is absent or broken."""
    try:
        return dataset.get(keyword)
    except (MemoryError, RecursionError, Refused):
        raise
    except Exception:
        return None


def _first(dataset: Dataset, keyword: str) -> Any:
    found = elements(dataset, keyword)
    if isinstance(found, (MultiValue, list, tuple)):
        return found[0] if found else None
    return found


def text(dataset: Dataset, keyword: str) -> str | None:
    """The first string, stripped; None where there is none."""
    found = _first(dataset, keyword)
    return found.strip(" \0") or None if isinstance(found, str) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first number; None where there is none, or it is not finite."""
    try:
        found = float(_first(dataset, keyword))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """The first number as an integer; None where there is none."""
    found = number(dataset, keyword)
    return None if found is None else int(found)


def integers(dataset: Dataset, keyword: str) -> tuple[int, ...] | None:
    """All numbers as integers, one or more; None where there is none, or one is not finite."""
    found = elements(dataset, keyword)
    try:
        several = isinstance(found, (MultiValue, list, tuple))
        return tuple(int(float(x)) for x in (found if several else (found,))) or None
    except (TypeError, ValueError, OverflowError):
        return None


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, else None."""
    try:
        found = tuple(float(x) for x in elements(dataset, keyword))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def item(dataset: Dataset, keyword: str, index: int = 0) -> Dataset | None:
    """An item of a sequence; None where there is none."""
    found = elements(dataset, keyword)
    return found[index] if isinstance(found, Sequence) and index < len(found) else None


def group(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """What a functional group of an enhanced image says about a frame (PS3.3 C.7.6.16).

    Args:
        dataset: The file's.
        frame: 0-based.
        keyword: The sequence of the group, such as "PlanePositionSequence".
    """
    own = item(dataset, "PerFrameFunctionalGroupsSequence", frame)
    shared = item(dataset, "SharedFunctionalGroupsSequence")
    for place in (own, shared):
        if place is not None and (found := item(place, keyword)) is not None:
            return found
    return None
