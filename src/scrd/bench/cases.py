"""Test images that were read, and the few of them whose maps are kept to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scrd.data.cache import ImageStack
from scrd.data.marks import mark
from scrd.data.reading import read_image
from scrd.data.record import Record
from scrd.errors import ImageError
from scrd.report.overlay import display_image

QUARTILES = (0.25, 0.75)
"""Where in the order of the abnormal images the kept cases stand."""
SIDE = 128
"""Longer side of what is kept of an image, in pixels."""


class Labelled(NamedTuple):
    """Test images that were read: ``records[i]`` belongs to ``stack.images[i]``."""

    records: tuple[Record, ...]
    stack: ImageStack


@dataclass(frozen=True)
class Cases:
    """Abnormal images that were chosen before any score was known.

    Attributes:
        images: which they belong to.
        places: of each in ``images``, in the order of the choice.
        by_size: whether they stand at the quartiles of lesion size, else of the names.
    """

    images: Labelled
    places: tuple[int, ...]
    by_size: bool

    def size(self, place: int) -> tuple[int, int]:
        """Height and width of what is kept of an image, in pixels."""
        height, width = self.images.stack.source_sizes[place]
        factor = SIDE / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def pictures(self) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
        """Each case as a screen shows it, (h, w) or (h, w, 3), and its lesions, (h, w)."""
        found = []
        for place in self.places:
            record, size = self.images.records[place], self.size(place)
            shown = Image.fromarray(display_image(read_image(record.source)))
            marks = Image.fromarray(_marks(record, self.images.stack.source_sizes[place]))
            picture = shown.resize(size[::-1], Image.Resampling.BICUBIC)
            # a lesion of one pixel stays one
            smaller = np.asarray(marks.convert("L").resize(size[::-1], Image.Resampling.BOX))
            found.append((np.asarray(picture), smaller > 0))
        return found


def choose_cases(images: Labelled) -> Cases:
    """The abnormal images at the quartiles of lesion size, as a share of the image.

    Without masks and boxes they are those at the quartiles of the names in alphabetical order. No
    method and no score has a say in it.
    """
    abnormal = [i for i, record in enumerate(images.records) if record.label == 1]
    shares = {}
    for i in abnormal:
        try:
            shares[i] = float(_marks(images.records[i], images.stack.source_sizes[i]).mean())
        except ImageError:  # which the comparison of maps with lesions counts
            shares[i] = 0.0
    marked = [i for i in abnormal if shares[i] > 0]
    order = sorted(marked or abnormal, key=lambda i: (shares[i], images.records[i].name))
    return Cases(images, _at_quartiles(order), bool(marked))


def _at_quartiles(order: Sequence[int]) -> tuple[int, ...]:
    if not order:
        return ()
    return tuple(dict.fromkeys(order[round(q * (len(order) - 1))] for q in QUARTILES))


def _marks(record: Record, size: tuple[int, int]) -> NDArray[np.bool_]:
    if record.mask is None and not record.boxes:
        return np.zeros(size, dtype=np.bool_)
    return mark(record, size).pixels
