"""An even sample: some of many, spread over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def even_places(count: int, at_most: int) -> NDArray[np.intp]:
    """Which of ``count`` things to take: min(count, at_most) places, rising, evenly spread.

    Never one less than allowed, and never only the first ones.

    Args:
        count: How many there are.
        at_most: How many may be taken, at least 1.
    """
    taken = min(count, at_most)
    return np.arange(taken, dtype=np.intp) * count // max(taken, 1)


def even(items: Sequence[T], at_most: int) -> list[T]:
    """The things at `even_places`."""
    return [items[i] for i in even_places(len(items), at_most)]


def even_pixels(pixels: NDArray[Any], at_most: int) -> NDArray[Any]:
    """Whole rows and columns of a picture left out evenly, so that no more pixels are left.

    Args:
        pixels: (H, W) or (H, W, 3).
        at_most: Pixels that may be left.
    """
    rows, columns = pixels.shape[:2]
    share = min(1.0, (at_most / (rows * columns)) ** 0.5)
    kept_columns = max(1, at_most // max(1, int(rows * share)))
    kept_rows = max(1, at_most // min(columns, kept_columns))
    return pixels[even_places(rows, kept_rows)][:, even_places(columns, kept_columns)]
