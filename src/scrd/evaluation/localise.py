"""Where maps point, against the masks and boxes of a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scrd.audit.duplicates import luminance
from scrd.data.marks import mark
from scrd.data.reading import read_image
from scrd.data.record import Record
from scrd.errors import ImageError
from scrd.metrics.pixels import localisation_metrics, pointing_hit


class Localisation(NamedTuple):
    """What masks and boxes say about maps.

    Attributes:
        figures: For ``metrics.json``; empty without a marked image.
        failures: The masks or boxes that cannot be used; their images take no part.
        doubts: Of those that are used.
    """

    figures: dict[str, float | int]
    failures: tuple[ImageError, ...]
    doubts: tuple[ImageError, ...]


def localise(
    records: Sequence[Record],
    sizes: Sequence[tuple[int, int]],
    source_map: Callable[[int], NDArray[np.float32]],
) -> Localisation:
    """Localisation on the images whose lesions are known; normals count as free of lesions.

    Two baselines stand beside the pointing game: the brightest place of the image, and its
    centre.

    Args:
        records: the N scored images.
        sizes: (height, width) of each source image in pixels.
        source_map: position → anomaly map (H, W) at the source image's size, any range; asked
            for repeatedly, so that one map at a time is in memory.

    Returns:
        The figures, and what became of the masks and boxes.
    """
    chosen: list[int] = []
    marked: list[int] = []
    failures: list[ImageError] = []
    doubts: list[ImageError] = []
    bright = centre = 0
    for i, (record, size) in enumerate(zip(records, sizes, strict=True)):
        if record.mask is not None or record.boxes:
            try:
                mask, unclear = mark(record, size)
            except ImageError as e:
                failures.append(e)
                continue
            doubts += unclear
            if mask.any():
                marked.append(i)
                grey = luminance(read_image(record.source))
                bright += pointing_hit(gaussian_filter(grey, 0.02 * max(grey.shape)), mask)
                centre += bool(mask[mask.shape[0] // 2, mask.shape[1] // 2])
        elif record.label == 1:
            continue
        chosen.append(i)
    if not marked:
        return Localisation({}, _distinct(failures), _distinct(doubts))
    measured = localisation_metrics(
        _Lazy(lambda n: source_map(chosen[n]), len(chosen)),
        _Lazy(lambda n: mark(records[chosen[n]], sizes[chosen[n]]).pixels, len(chosen)),
    )
    measured["brightest_place_hit_rate"] = bright / len(marked)
    measured["centre_hit_rate"] = centre / len(marked)
    return Localisation(measured, _distinct(failures), _distinct(doubts))


def _distinct(errors: Sequence[ImageError]) -> tuple[ImageError, ...]:
    """One of each: all slices of a volume may have the same to say about one mask."""
    return tuple({(e.path, e.reason): e for e in errors}.values())


class _Lazy(Sequence[Any]):
    """A sequence whose items are made when asked for, one in memory at a time."""

    def __init__(self, make: Callable[[int], Any], length: int) -> None:
        self._make, self._length = make, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._make(index)
