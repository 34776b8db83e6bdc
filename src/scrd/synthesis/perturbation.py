"""Synthetic anomalies for training: a patch of noise added to a normal image.

Algorithm 1 of the paper. All that is random is drawn first (`sample_perturbation`), on the CPU, so
that a seed gives the same anomalies on every device; adding them (`apply_perturbation`) is
deterministic and replays the same draw as often as wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scrd.synthesis.drawn import Drawn
from scrd.synthesis.settings import NoiseSettings
from scrd.synthesis.simplex import random_permutations, simplex_fields

SIMPLEX_STD = 0.455
"""Root mean square of the simplex noise that training adds, before the strength is applied.

Measured over the pixels of 20,000 patches drawn by `sample_perturbation` for 256-pixel images, six
octaves, persistence 0.6. It depends somewhat on the size of the patches, which all begin at a
lattice point: 0.485 for 128-pixel images, 0.416 for 512.
"""


@dataclass(frozen=True)
class Perturbation(Drawn):
    """The drawn parameters of a batch of perturbations.

    Attributes:
        image_size: (height, width) in pixels of the images they were drawn for.
        top: (B,) int64, first row of each patch.
        left: (B,) int64, first column.
        height: (B,) int64, rows.
        width: (B,) int64, columns.
        noise: What the noise is made from. Simplex: (B, 256) int64, a permutation of 0..255 per
            image. Gaussian: (B, 3, h, w) float32 standard normal values, (h, w) being the largest
            possible patch, of which each patch takes the upper left part.
    """

    image_size: tuple[int, int]
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    noise: Tensor


def random_integers(low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one integer per element, uniform in [low, high]; (B,) int64, all on the CPU."""
    uniform = torch.rand(low.shape, generator=generator, dtype=torch.float64)
    return low + (uniform * (high - low + 1)).long()


def sample_perturbation(
    batch_size: int,
    image_size: tuple[int, int],
    settings: NoiseSettings,
    generator: torch.Generator,
    fields: torch.Generator | None = None,
) -> Perturbation:
    """Draw size, place and noise of one patch per image (Algorithm 1).

    Height and width are independent integers, uniform in the range of
    `NoiseSettings.side_range` ([10, side // 8] in the paper); the place is uniform over all where
    the patch lies inside the image.

    Args:
        batch_size: Number of images B.
        image_size: (height, width) in pixels.
        settings: Kind of noise and range of patch sizes.
        generator: A generator of the CPU.
        fields: Another, from which the noise is drawn; the same by default. A fixed field is the
            same in two batches if this one starts alike in both.

    Returns:
        The parameters, on the CPU.
    """
    sides, starts = [], []
    for extent in image_size:
        smallest, largest = settings.side_range(extent)
        side = torch.randint(smallest, largest + 1, (batch_size,), generator=generator)
        sides.append(side)
        starts.append(random_integers(torch.zeros_like(side), extent - side, generator))
    fields = fields or generator
    count = 1 if settings.field == "fixed" else batch_size
    if settings.kind == "simplex":
        noise = random_permutations(count, fields)
    else:
        noise = torch.randn(count, 3, *_largest_patch(image_size, settings), generator=fields)
    if count < batch_size:
        noise = noise.repeat(batch_size, *(1,) * (noise.ndim - 1))
    return Perturbation(image_size, starts[0], starts[1], sides[0], sides[1], noise)


def apply_perturbation(
    image: Tensor, perturbation: Perturbation, settings: NoiseSettings
) -> tuple[Tensor, Tensor]:
    """Add the drawn noise to a batch of images: ``x' = x + strength * noise`` inside the patch.

    Nothing is clipped, so values may leave [0, 1] (as in the method), and nothing is random: the
    same arguments give the same result.

    Args:
        image: (B, 3, H, W) float in [0, 1].
        perturbation: Parameters for B images of H by W pixels; moved to the image's device.
        settings: Those with which the perturbation was drawn.

    Returns:
        The perturbed images, (B, 3, H, W) in the dtype and on the device of `image`, and the
        footprint of the noise, (B, 1, H, W) bool.

    Raises:
        ValueError: If `image` is not what the perturbation was drawn for.
    """
    expected = (len(perturbation.top), 3, *perturbation.image_size)
    if image.shape != expected:
        raise ValueError(
            f"the perturbation was drawn for images of shape {expected}, got {tuple(image.shape)}"
        )
    drawn = perturbation.to(image.device)
    height, width = _largest_patch(drawn.image_size, settings)
    if settings.kind == "simplex":
        field = simplex_fields(
            drawn.noise,
            height,
            width,
            octaves=settings.octaves,
            persistence=settings.persistence,
        )
    else:
        field = SIMPLEX_STD * drawn.noise

    # a window of one size for all, so that a GPU can record it: the patch, and nothing around it
    index = torch.arange(len(image), device=image.device)[:, None, None]
    row, y, in_height = _window(drawn.top, drawn.height, height, image.shape[2])
    column, x, in_width = _window(drawn.left, drawn.width, width, image.shape[3])
    row, column, y, x = row[:, :, None], column[:, None], y[:, :, None], x[:, None]
    within = in_height[:, :, None] & in_width[:, None]
    noise = field[index, :, y, x] * within[..., None]
    perturbed = image.clone()
    perturbed[index, :, row, column] += settings.strength * noise.to(image.dtype)
    footprint = torch.zeros_like(image[:, :1], dtype=torch.bool)
    footprint[index, 0, row, column] = within
    return perturbed, footprint


def _window(
    start: Tensor, extent: Tensor, largest: int, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows or columns of the image that hold a patch, each (B, largest).

    Returns:
        Them, int64; those of the patch, int64, in [0, largest); whether these are of it, bool.
    """
    at = torch.arange(largest, device=start.device)
    image = start.clamp_max(side - largest)[:, None] + at
    patch = image - start[:, None]
    return image, patch.clamp_min(0), (patch >= 0) & (patch < extent[:, None])


def patch_pixels(height: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List the pixels of patches of different sizes.

    Args:
        height: (B,) int64, rows of each patch.
        width: (B,) int64, columns.

    Returns:
        Index into the batch, row and column within the patch: each (sum of areas,) int64.
    """
    area = height * width
    index = torch.repeat_interleave(area)
    within = torch.arange(len(index), device=area.device) - (area.cumsum(0) - area)[index]
    return index, within // width[index], within % width[index]


def _largest_patch(image_size: tuple[int, int], settings: NoiseSettings) -> tuple[int, int]:
    return settings.side_range(image_size[0])[1], settings.side_range(image_size[1])[1]
