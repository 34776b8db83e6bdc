"""Plain facts of an image that tell where it comes from, whatever it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrd.data.formats.info import ImageInfo

ACQUISITION = ("brightness", "contrast", "sharpness")
"""The columns of :func:`acquisition`."""

_FLOOR = 1e-8  # of the mean square, so that a constant image has a logarithm


@dataclass(frozen=True)
class Covariates:
    """Where one image comes from; nothing of a patient.

    Attributes:
        width: Columns of the source image.
        height: Rows of the source image.
        spacing: Between rows and between columns, in mm; None where the file does not say.
        manufacturer: As a DICOM file gives it, upper case; None likewise.
        format: "DICOM", "NIfTI", or "picture" for all others; None where it was not asked.
        brightness: Mean of the prepared image, on the model's intensity scale.
        contrast: Standard deviation likewise.
        sharpness: Natural logarithm of the mean square of its Laplacian.
    """

    width: int
    height: int
    spacing: tuple[float, float] | None
    manufacturer: str | None
    format: str | None
    brightness: float
    contrast: float
    sharpness: float


def covariates(
    size: tuple[int, int], info: ImageInfo | None, numbers: NDArray[np.float64]
) -> Covariates:
    """Put together what header and pixels say of one image.

    Args:
        size: Rows and columns of the source image.
        info: What its header says, where that was read.
        numbers: (3,), one row of :func:`acquisition`.
    """
    brightness, contrast, sharpness = numbers.tolist()
    height, width = size
    return Covariates(
        width=width,
        height=height,
        spacing=info.spacing if info else None,
        manufacturer=info.manufacturer if info else None,
        format=info.kind if info else None,
        brightness=brightness,
        contrast=contrast,
        sharpness=sharpness,
    )


def acquisition(images: NDArray[np.float32], content: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Brightness, contrast and sharpness of prepared images.

    The twin, without PyTorch, of :func:`scrd.model.acquisition.acquisition`.

    Args:
        images: (B, C, S, S), C = 1 or 3, on the model's intensity scale.
        content: (B, S, S), False on letterbox padding, which does not count; what is True is a
            rectangle.

    Returns:
        (B, 3): mean, standard deviation, and the natural logarithm of the mean square of the
        4-neighbour Laplacian, all of the mean over the channels.
    """
    found = np.empty((len(images), len(ACQUISITION)))
    for row, image, inside in zip(found, images, content, strict=True):
        grey = (image[0] if len(image) == 1 else image.mean(axis=0))[_rectangle(inside)]
        mean = grey.mean()
        centred = grey - mean
        laplacian = centred[:-2, 1:-1] + centred[2:, 1:-1]
        laplacian += centred[1:-1, :-2]
        laplacian += centred[1:-1, 2:]
        laplacian -= 4 * centred[1:-1, 1:-1]
        edges = _mean_square(laplacian)
        row[:] = mean, np.sqrt(_mean_square(centred)), np.log(edges + _FLOOR)
    return found


def _mean_square(values: NDArray[np.float32]) -> float:
    return float(np.square(values).mean()) if values.size else 0.0


def _rectangle(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    if inside.all():
        return slice(None), slice(None)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
