"""Where the lesions of an image are, from masks and boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrd.data.manifest import Record
from scrd.data.reading import file_format, read_image
from scrd.data.source import Source
from scrd.errors import ImageError


def mark(record: Record, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the lesions of an image are: (H, W) bool, from its mask or its boxes, else nowhere.

    Raises:
        ImageError: the mask cannot be read or has another size than the image, or a box lies
            outside it.
    """
    marked = np.zeros(size, dtype=bool)
    if record.mask is not None:
        volume = file_format(record.mask) == "NIfTI"
        mask = read_image(Source(record.mask, record.frame if volume else None))
        mask = mask if mask.ndim == 2 else mask.max(axis=2)
        if mask.shape != size:
            reason = f"the mask is {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}"
            raise ImageError(record.mask, reason)
        marked |= mask > 0
    for box in record.boxes:
        try:
            marked |= box_mask(size, *box)
        except ValueError as e:
            raise ImageError(record.path, str(e)) from e
    return marked


def box_mask(
    size: tuple[int, int], x_min: float, y_min: float, x_max: float, y_max: float
) -> NDArray[np.bool_]:
    """The mask of a box: the pixels whose centres it contains.

    Args:
        size: ``(height, width)`` of the image in pixels.
        x_min: left edge; pixel i reaches from i to i + 1, so the image's left edge is 0.
        y_min: top edge; the origin is at the top left.
        x_max: right edge, the image's being ``width``.
        y_max: bottom edge.

    Returns:
        Bool (height, width); parts of the box outside the image are cut off.

    Raises:
        ValueError: no pixel centre of the image lies in the box.
    """
    # centre i + 0.5 in [low, high)
    columns = slice(*(max(0, int(np.ceil(x - 0.5))) for x in (x_min, x_max)))
    rows = slice(*(max(0, int(np.ceil(y - 0.5))) for y in (y_min, y_max)))
    mask = np.zeros(size, dtype=np.bool_)
    mask[rows, columns] = True
    if not mask.any():
        raise ValueError(
            f"the box x {x_min} to {x_max}, y {y_min} to {y_max} holds no pixel of an image "
            f"{size[1]} wide and {size[0]} high"
        )
    return mask
