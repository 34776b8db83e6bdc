"""OpenSimplex noise in three dimensions, for a whole batch of images at once.

The noise (K. Spencer's OpenSimplex of 2014) is a sum of bumps on the lattice of points
``v = c + (c_1 + c_2 + c_3) / 3``, c a triple of integers: every lattice point closer than sqrt(2)
to a position p adds

    max(0, 2 - |p - v|^2)^4 <g(c), p - v> / 103,

where the gradient g(c) is one of 24 vertices of a rhombicuboctahedron, picked by hashing c with a
permutation of 0..255. The published implementation (PyPI's `opensimplex`) finds those lattice
points by walking through the cell that holds p and stops at two beyond the cell's own vertices;
this module takes all within reach. The two agree to float32 rounding at 98.7 % of positions; at
the rest a third outlying point, which the walk leaves out, adds less than 2e-4.

All that depends on the permutation is g. The rest, being the same for every image, is a sparse
matrix from lattice gradients to noise values (`Stencil`); fields of any number of octaves are then
one sparse-times-dense product whose columns are the images.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

BASE_WAVELENGTH = 32.0
"""Wavelength in pixels of the first octave; each further octave halves it."""

_NORM = 103.0
_STRETCH = -1.0 / 6.0
_SQUISH = 1.0 / 3.0

# Which gradient a hash value names is part of the noise's definition: the long component runs
# fastest (x, y, z), then the signs of x (minus first), y and z (plus first).
_GRADIENTS = torch.tensor(
    [
        [sign * (11 if axis == long else 4) for axis, sign in enumerate((sx, sy, sz))]
        for sz, sy, sx in itertools.product((1, -1), (1, -1), (-1, 1))
        for long in range(3)
    ],
    dtype=torch.float32,
)

# The 26 lattice points that come within reach of some position of a cell, as steps from the cell's
# origin (a cell is a unit cube of the stretched space in which the lattice is the integers).
_STEPS = torch.tensor(
    [
        step
        for step in itertools.product(range(-1, 3), repeat=3)
        if 0 <= sum(step) <= 3 and max(step) - min(step) <= 2
    ]
)

# A field is evaluated in bands of rows of about this many values: a stencil of six octaves then
# takes 30 MB, and as many as an 8-place cache holds are still small.
_BAND_VALUES = 1 << 15


@dataclass(frozen=True)
class Stencil:
    """The linear map from lattice gradients to noise values, in compressed-row form.

    Row n of the matrix is the noise at sample position n, column ``3 m + a`` is component a of the
    gradient at lattice point m.

    Attributes:
        lattice: (M, 3) int64, the lattice points' integer coordinates modulo 256.
        column: (nnz,) int32, column of each entry.
        weight: (nnz,) float32, value of each entry.
        row_start: (N + 1,) int32, first entry of each row, then nnz.
    """

    lattice: Tensor
    column: Tensor
    weight: Tensor
    row_start: Tensor

    def to(self, device: torch.device) -> Stencil:
        """Return the stencil on another device."""
        return Stencil(
            self.lattice.to(device),
            self.column.to(device),
            self.weight.to(device),
            self.row_start.to(device),
        )


def make_stencil(points: Tensor, amplitudes: Tensor) -> Stencil:
    """Work out which lattice points reach which positions, and how strongly.

    Args:
        points: (N, O, 3) float64 on the CPU, positions (x, y, z) in units of the wavelength; the
            noise at the O positions of a row is added up.
        amplitudes: (O,) float64, factor of each of the O terms.

    Returns:
        The stencil of ``out[n] = sum_o amplitudes[o] * noise(points[n, o])``.
    """
    rows, octaves, _ = points.shape
    flat = points.reshape(-1, 3)
    stretched = flat + _STRETCH * flat.sum(1, keepdim=True)
    base = stretched.floor()
    inside = stretched - base

    # |e + s (e_1+e_2+e_3)|^2 = |e|^2 + (2 s + 3 s^2) (e_1+e_2+e_3)^2, e in stretched coordinates
    square = torch.zeros(len(flat), len(_STEPS), dtype=flat.dtype)
    total = torch.zeros_like(square)
    for axis in range(3):
        offset = inside[:, axis, None] - _STEPS[:, axis]
        square.addcmul_(offset, offset)
        total += offset
    square += (2 * _SQUISH + 3 * _SQUISH**2) * total.square_()
    point, step = torch.nonzero(square < 2, as_tuple=True)

    offset = inside[point] - _STEPS[step]
    displacement = offset + _SQUISH * offset.sum(1, keepdim=True)
    kernel = (2 - square[point, step]) ** 4 * amplitudes[point % octaves] / _NORM
    weight = kernel[:, None] * displacement

    corner = (base[point].long() + _STEPS[step]) & 255
    keys, vertex = torch.unique(
        (corner[:, 0] << 16) | (corner[:, 1] << 8) | corner[:, 2], return_inverse=True
    )
    entries = 3 * torch.bincount(point // octaves, minlength=rows)
    return Stencil(
        lattice=torch.stack([keys >> 16, (keys >> 8) & 255, keys & 255], 1),
        column=(3 * vertex[:, None] + torch.arange(3)).flatten().int(),
        weight=weight.float().flatten(),
        row_start=F.pad(entries.cumsum(0), (1, 0)).int(),
    )


def evaluate(stencil: Stencil, permutations: Tensor) -> Tensor:
    """Noise of each permutation at the stencil's positions.

    Args:
        stencil: N positions, on the permutations' device.
        permutations: (B, 256) int64, each row a permutation of 0..255.

    Returns:
        (B, N) float32.
    """
    i, j, k = stencil.lattice.T
    hashed = permutations[:, i]
    hashed = permutations.gather(1, (hashed + j) & 255)
    hashed = permutations.gather(1, (hashed + k) & 255) % len(_GRADIENTS)
    gradients = _gradients(permutations.device)[hashed.T]  # (M, B, 3)
    return F.embedding_bag(
        stencil.column,
        gradients.transpose(1, 2).reshape(-1, len(permutations)),
        stencil.row_start,
        mode="sum",
        per_sample_weights=stencil.weight,
        include_last_offset=True,
    ).T


@lru_cache(maxsize=8)
def _gradients(device: torch.device) -> Tensor:
    return _GRADIENTS.to(device)


@lru_cache(maxsize=8)
def _band_stencil(
    top: int, height: int, width: int, octaves: int, persistence: float, device: torch.device
) -> Stencil:
    """Stencil of three-channel image rows top..top+height-1, positions in (channel, y, x) order."""
    channel, y, x = torch.meshgrid(
        torch.arange(3.0, dtype=torch.float64),
        torch.arange(top, top + height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    pixels = torch.stack([x, y, channel], -1).reshape(-1, 1, 3)
    octave = torch.arange(octaves, dtype=torch.float64)
    points = pixels / (BASE_WAVELENGTH * 0.5**octave)[:, None]
    return make_stencil(points, persistence**octave).to(device)


def simplex_fields(
    permutations: Tensor, height: int, width: int, *, octaves: int, persistence: float
) -> Tensor:
    """Fractal simplex noise on the pixel grid of three-channel images, one field per permutation.

        field(c, y, x) = sum_o persistence^o noise((x, y, c) / (32 / 2^o)),  o = 0..octaves-1

    Args:
        permutations: (B, 256) int64, see `random_permutations`.
        height: Rows, in pixels.
        width: Columns, in pixels.
        octaves: Number of octaves, at least 1.
        persistence: Ratio of the amplitudes of successive octaves.

    Returns:
        (B, 3, height, width) float32 on the permutations' device; one octave stays within [-1, 1].
    """
    band = max(1, _BAND_VALUES // (3 * width))
    bands = []
    for top in range(0, height, band):
        rows = min(band, height - top)
        stencil = _band_stencil(top, rows, width, octaves, persistence, permutations.device)
        bands.append(evaluate(stencil, permutations).reshape(-1, 3, rows, width))
    return torch.cat(bands, dim=2)


def random_permutations(count: int, generator: torch.Generator) -> Tensor:
    """Draw permutations of 0..255, one per row: (count, 256) int64 on the generator's device."""
    return torch.rand(count, 256, generator=generator).argsort(dim=1, stable=True)
