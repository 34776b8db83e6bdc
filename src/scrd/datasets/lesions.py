"""Simulated lesions: an irregular core with a soft edge, perhaps oedema, and a mass effect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]

DIAMETERS = (14.0, 32.0)
"""Smallest and largest diameter in mm, oedema included."""


def smooth_noise(rng: np.random.Generator, points: tuple[Array, Array, Array], mm: float) -> Array:
    """Draw a smooth random field on a grid: white noise on a lattice, cubic B-splines between.

    Args:
        rng: source of the lattice values.
        points: grid positions along z (S,), y (H,) and x (W,), float32, mm.
        mm: lattice spacing in mm.

    Returns:
        (S, H, W) float32, mean 0, unit variance over draws and positions.
    """
    bases = []
    for axis in points:
        first, last = np.floor(axis.min() / mm) - 1, np.ceil(axis.max() / mm) + 2
        t = np.abs(axis[:, None] / mm - np.arange(first, last))
        bases.append(np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6))
    lattice = rng.standard_normal([basis.shape[1] for basis in bases])
    field = np.einsum("abc,za,yb,xc->zyx", lattice, *bases, optimize=True)
    # 151/315 is the integral of the squared cubic B-spline
    return np.asarray(field / (151 / 315) ** 1.5, dtype=np.float32)


@dataclass(frozen=True)
class Lesion:
    """A lesion on one subject's grid; arrays (S, H, W)."""

    push: Array  # (3, S, H, W) mm, where the displaced tissue is taken from
    core: Array  # in [0, 1], share of lesion in the pixel
    rim: Array  # in [0, 1], share of oedema around it
    mask: NDArray[np.bool_]
    contrast: float  # of the core against its surroundings, white matter = 1
    texture: Array  # relative variation inside the core


def draw_lesion(
    rng: np.random.Generator, tissue: Array, points: tuple[Array, Array, Array]
) -> Lesion:
    """Place a lesion in the brain tissue of one subject.

    Args:
        rng: source of every draw.
        tissue: (S, H, W) float32, the subject's T1 in template intensities, 0 outside the brain.
        points: grid positions along z, y, x in mm.

    Raises:
        RuntimeError: no place or shape fits (an image far too small).
    """
    pixel = abs(float(points[2][1] - points[2][0]))
    depth = np.stack([ndimage.distance_transform_edt(t) for t in tissue > 0]) * pixel
    grid = np.meshgrid(*points, indexing="ij")
    for _ in range(200):
        diameter = rng.uniform(*DIAMETERS)
        rim_width = rng.choice([0.0, rng.uniform(2.0, 5.0)])
        radius = diameter / 2 - rim_width
        # its middle may lie in any tissue that is not fluid, further in than half its radius
        rows, columns = np.nonzero(
            (depth.min(axis=0) > radius / 2 + 2) & (tissue.mean(axis=0) > 0.55)
        )
        if rows.size == 0:
            continue
        at = rng.integers(rows.size)
        centre = (points[0].mean(), points[1][rows[at]], points[2][columns[at]])
        offset = np.stack([g - c for g, c in zip(grid, centre, strict=True)])
        stretch = rng.uniform(0.75, 1.3, 3)[:, None, None, None]
        distance = np.sqrt(np.sum((offset * stretch) ** 2, axis=0))
        rough = smooth_noise(rng, points, max(0.8 * radius, 2 * pixel))
        ragged = smooth_noise(rng, points, max(0.3 * radius, 1.5 * pixel))
        # signed distance to the boundary in mm, negative inside, made irregular by the noise
        outside = distance + radius * (0.3 * rough + 0.1 * ragged) - radius
        mask = (outside < rim_width) & (tissue > 0)
        equivalent = 2 * pixel * np.sqrt(mask.sum(axis=(1, 2)) / np.pi)
        if DIAMETERS[0] / 2 <= equivalent.min() and equivalent.max() <= DIAMETERS[1]:
            break
    else:
        raise RuntimeError(f"no lesion fits into a brain image of {tissue.shape[-1]} pixels")

    soft = rng.uniform(0.5, 1.1)
    core = 1 / (1 + np.exp(np.clip(outside / soft, -30, 30)))
    swollen = 1 / (1 + np.exp(np.clip((outside - rim_width) / (1.5 * soft), -30, 30)))
    rim = np.clip(swollen - core, 0, 1) * (rim_width > 0)
    # the skull holds the outline where it is
    strength = rng.uniform(0.1, 0.45) * np.clip((depth - 2 * pixel) / 12, 0, 1)
    push = -strength * offset[::-1] * np.exp(-0.5 * (distance / (1.3 * radius + rim_width)) ** 2)
    contrast = rng.choice([-rng.uniform(0.28, 0.42), rng.uniform(0.16, 0.28)])
    return Lesion(
        push=np.asarray(push, dtype=np.float32),
        core=np.asarray(core, dtype=np.float32),
        rim=np.asarray(rim, dtype=np.float32),
        mask=mask,
        contrast=float(contrast),
        texture=0.05 * smooth_noise(rng, points, max(0.4 * radius, 2 * pixel)),
    )


def paint(tissue: Array, lesion: Lesion) -> Array:
    """Blend a lesion into the subject's tissue: both (S, H, W), template intensities."""
    around = float(np.average(tissue, weights=lesion.core * (tissue > 0)))
    level = np.clip(around + lesion.contrast, 0.25, 1.08) * (1 + lesion.texture)
    painted = tissue + lesion.core * (level - tissue)
    # oedema is darker than white matter on T1
    painted += 0.8 * lesion.rim * np.minimum(0.62 - painted, 0)
    return np.where(tissue > 0, painted, 0).astype(np.float32)
