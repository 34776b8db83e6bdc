"""Plain numbers of an image that may separate the classes without any look at the disease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.audit.duplicates import luminance
from scrd.metrics.ranks import auroc

_NEAR_BLACK = 10 / 255
_BORDER = 1 / 20


@dataclass(frozen=True)
class Confound:
    """How well one plain number separates images.

    Attributes:
        name: The number, a key of `scalars`.
        test: AUROC in [0, 1], abnormal against normal test images; None if either is missing.
        shift: AUROC in [0, 1], normal test against normal training images; None if either is
            missing.
    """

    name: str
    test: float | None
    shift: float | None


def full_scale(pixels: NDArray[Any]) -> float:
    """The value of white: the type's largest for whole numbers, 1 for floating-point images."""
    return float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else 1.0


def scalars(pixels: NDArray[Any], file_size: int) -> dict[str, float]:
    """Plain numbers of one image.

    Args:
        pixels: (H, W) or (H, W, 3); uint8, uint16 or float32, stored values.
        file_size: In bytes.

    Returns:
        By name: file size (bytes); mean brightness, contrast (standard deviation) and sharpness
        (variance of the 4-neighbour Laplacian) of the luminance, full scale 1; near black, the
        share of pixels below 10/255 of full scale; border brightness, and border red minus blue
        (0 for grey images), means over the outer twentieth of each side, full scale 1; colour
        channels (1 or 3); width and height in pixels.
    """
    white = full_scale(pixels)
    grey = luminance(pixels) / np.float32(white)
    centre = grey[1:-1, 1:-1]
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian = neighbours - 4 * centre
    height, width = grey.shape
    tint = 0.0
    if pixels.ndim == 3:
        tint = (_border_mean(pixels[..., 0]) - _border_mean(pixels[..., 2])) / white
    return {
        "file size": float(file_size),
        "mean brightness": float(grey.mean(dtype=np.float64)),
        "contrast": float(grey.std(dtype=np.float64)),
        "sharpness": float(laplacian.var(dtype=np.float64)) if laplacian.size else 0.0,
        "near black": float((grey < _NEAR_BLACK).mean()),
        "border brightness": _border_mean(grey),
        "border red minus blue": tint,
        "colour channels": 1.0 if pixels.ndim == 2 else float(pixels.shape[2]),
        "width": float(width),
        "height": float(height),
    }


def confound_table(
    rows: Sequence[Mapping[str, float]], labels: Sequence[int], splits: Sequence[str]
) -> tuple[Confound, ...]:
    """Say of each plain number how well it separates classes and splits.

    Args:
        rows: One result of `scalars` per image, N in all.
        labels: N times 0 normal or 1 abnormal.
        splits: N times "train" or "test".

    Returns:
        One entry per number, in the order of `scalars`.
    """
    abnormal = np.asarray(labels, np.intp) == 1
    test = np.asarray(splits, np.str_) == "test"
    table = []
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows])
        table.append(
            Confound(
                name,
                _auroc(values[test], abnormal[test]),
                _auroc(values[~abnormal], test[~abnormal]),
            )
        )
    return tuple(table)


def _border_mean(plane: NDArray[Any]) -> float:
    height, width = plane.shape
    inside = np.zeros(plane.shape, np.bool_)
    y, x = max(1, round(height * _BORDER)), max(1, round(width * _BORDER))
    inside[y : height - y, x : width - x] = True
    return float(plane[~inside].mean(dtype=np.float64))


def _auroc(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    if positive.all() or not positive.any():
        return None
    return auroc(values, positive.astype(np.intp))
