"""Where the lesions of an image are, from masks and boxes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrd.data.mask_values import Mask, read_mask
from scrd.data.reading import file_format
from scrd.data.record import Record
from scrd.errors import ImageError

_BEYOND = 1.0  # pixels that a rounded box may reach over the edge


class Marks(NamedTuple):
    """Where the lesions of an image are.

    Attributes:
        pixels: (H, W) bool.
        doubts: What is unclear, each with the file of the mask or, for boxes, of the image.
    """

    pixels: NDArray[np.bool_]
    doubts: tuple[ImageError, ...] = ()


def mark(record: Record, size: tuple[int, int]) -> Marks:
    """Where the lesions of an image are, from its mask or its boxes, else nowhere.

    A NIfTI mask is laid over its image by the geometry of both; any other has to have the image's
    size. A mask that is empty speaks of a normal image.

    Args:
        record: Of the image.
        size: Its height and width in pixels.

    Raises:
        ImageError: The mask cannot be read, fits not its image, or says other than its label; or
            a box lies outside.
    """
    pixels = np.zeros(size, dtype=np.bool_)
    doubts: list[str] = []
    if record.mask is not None:
        mask = read_mask(record.mask)
        found = _laid(record, mask, size)
        if record.label == 1 and not mask.marked.any():
            raise ImageError(record.mask, "the mask marks nothing, and its image is abnormal")
        doubts += mask.doubts
        if found.all():
            doubts.append("the mask marks every pixel of its image")
        elif _border(found).all():
            doubts.append("the mask marks all of the image's border: is it inverted?")
        pixels |= found
    told = [ImageError(record.mask or record.path, doubt) for doubt in doubts]
    for box in record.boxes:
        try:
            pixels |= box_mask(size, *box)
        except ValueError as e:
            raise ImageError(record.path, str(e)) from e
        if min(box) < -_BEYOND or box[2] > size[1] + _BEYOND or box[3] > size[0] + _BEYOND:
            told.append(
                ImageError(
                    record.path,
                    f"a box, x {box[0]:g} to {box[2]:g} and y {box[1]:g} to {box[3]:g}, reaches "
                    f"beyond the image, {size[1]} wide and {size[0]} high",
                )
            )
    if record.label == 0 and pixels.any():
        path = record.path if record.mask is None else record.mask
        raise ImageError(path, "a lesion is marked, and the image is labelled normal")
    return Marks(pixels, tuple(told))


def _laid(record: Record, mask: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The (H, W) part of a mask that lies on an image."""
    assert record.mask is not None
    try:
        if mask.affine is not None:
            return _in_patient(record, mask, size)
        _same_place(record)
    except ValueError as error:
        raise ImageError(record.mask, f"the mask {error}") from None
    height, width = mask.marked.shape
    if (height, width) != size:
        reason = f"the mask is {width}x{height}, its image {size[1]}x{size[0]}"
        raise ImageError(record.mask, reason)
    return mask.marked


def _in_patient(record: Record, mask: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the voxels of a mask that are the pixels of an image; nothing is interpolated."""
    series = record.series
    if series is None or series.affine is None:
        raise ValueError("lies in the patient (NIfTI), and it is not known where its image does")
    k = series.places.index((record.path, record.frame))
    assert mask.affine is not None
    leads = np.linalg.solve(mask.affine, series.affine)
    turn, shift = np.rint(leads[:3, :3]), np.rint(leads[:3, 3])
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        raise ValueError("has other voxels than its image, or lies at another angle")
    ends = itertools.product((0, size[1] - 1), (0, size[0] - 1), (k,))
    corners = np.array(list(ends), np.float64)
    places = corners @ turn.T + shift
    apart = np.abs(corners @ leads[:3, :3].T + leads[:3, 3] - places).max()
    if apart > 0.5 or places.min() < 0 or (places >= mask.marked.shape[::-1]).any():
        raise ValueError("lies elsewhere in the patient than its image, or on a part of it only")
    rows, columns = np.indices(size)
    pixels = np.stack([columns, rows, np.full(size, k)], axis=-1)
    i, j, h = np.moveaxis((pixels @ turn.T + shift).astype(np.intp), -1, 0)
    found: NDArray[np.bool_] = mask.marked[h, j, i]
    return found


def _same_place(record: Record) -> None:
    """Raise ValueError for a mask of one image that cannot be that of this one."""
    assert record.mask is not None
    series = record.series
    if series is None:
        return
    in_file = sum(path == record.path for path, _ in series.places)
    if in_file > 1:
        raise ValueError(f"is one picture, and its file holds {in_file} images")
    if series.format == "DICOM" and file_format(record.mask) == "DICOM":
        from scrd.data.formats.dicom import read_header

        mask, image = read_header(record.mask), read_header(record.path)
        pairs = ((mask.positions, image.positions), (mask.orientations, image.orientations))
        for (own,), (wanted,) in pairs:
            if own and wanted and not np.allclose(own, wanted, atol=0.1):
                raise ValueError("lies elsewhere in the patient than its image")


def _border(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


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
