"""Poisson image editing of rectangles: gradients of one image inside another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dstn, idstn

Floats = NDArray[np.floating[Any]]


def poisson_blend(source: Floats, destination: Floats) -> Floats:
    """Clone a rectangle seamlessly into another of the same size.

    Pérez, Gangnet, Blake, "Poisson image editing", SIGGRAPH 2003, Eq. (3) with the source's own
    gradients for guidance: inside, the five-point Laplacian of the result is that of the source;
    the outermost pixels are those of the destination. The result less the source is harmonic with
    known border values, and on a rectangle the sine transform (DST-I) solves that exactly.

    Args:
        source: (..., h, w), float, h and w at least 3.
        destination: same shape and dtype.

    Returns:
        Same shape and dtype. It may leave the range of both.
    """
    difference = destination - source
    height, width = difference.shape[-2:]
    known = np.zeros_like(difference[..., 1:-1, 1:-1])  # what the border adds to the Laplacian
    known[..., 0, :] -= difference[..., 0, 1:-1]
    known[..., -1, :] -= difference[..., -1, 1:-1]
    known[..., :, 0] -= difference[..., 1:-1, 0]
    known[..., :, -1] -= difference[..., 1:-1, -1]
    rows = 2 * np.cos(np.pi * np.arange(1, height - 1) / (height - 1)) - 2
    columns = 2 * np.cos(np.pi * np.arange(1, width - 1) / (width - 1)) - 2
    eigenvalues = (rows[:, None] + columns).astype(difference.dtype)
    inside = idstn(dstn(known, type=1, axes=(-2, -1)) / eigenvalues, type=1, axes=(-2, -1))
    blended: Floats = destination.copy()
    blended[..., 1:-1, 1:-1] = source[..., 1:-1, 1:-1] + inside
    return blended
