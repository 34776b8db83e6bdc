"""Synthetic lesions: what does not belong there, with the shapes and contrasts of disease.

Where Algorithm 1 puts noise on a small rectangle, a lesion here is a turned ellipse with a
wobbling, more or less soft edge, 3 to 25 % of the image's side across, on tissue. Inside it the
image is brighter or darker, with or without a texture, drawn towards one value, replaced by another
part of the image, blurred, or noisy.

All that is random is drawn first (`sample_lesions`), on the CPU and apart from the images, so that
a seed gives the same lesions on every device and however many processes share a batch; putting them
in (`apply_lesions`) is deterministic, and does the same work whatever was drawn, so that a GPU can
record it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.synthesis.drawn import Drawn

KINDS = ("plain", "textured", "mottled", "filled", "pasted", "blurred", "noisy")
"""What a lesion is made of; ``plain`` to ``mottled`` are brighter or darker than what was there."""

SIZES = (0.03, 0.25)
"""Diameter in sides of the image, drawn evenly in its logarithm."""
SOFTNESS = (0.03, 0.35)
"""Width of the edge in radii, likewise."""
CONTRAST = (0.08, 0.45)
"""How much brighter or darker, in units of the image's range."""
TISSUE = 0.08
"""Mean grey value from which a place is tissue, on which lesions are centred."""
VISIBLE = 0.015
"""Smallest change of the grey value that counts as part of a lesion."""

BLUR = (0.006, 0.02)
"""Standard deviation of the Gaussian of ``blurred``, in sides of the image."""

_LATTICE = 128


@dataclass(frozen=True)
class Lesions(Drawn):
    """The drawn parameters of a batch of lesions, one an image.

    Attributes:
        kind: (B,) int64, place in `KINDS`.
        place: (B,) in [0, 1), which of the tissue's pixels is the centre, in reading order.
        radius: (B,) mean radius in sides of the image.
        stretch: (B,) square root of the ratio of the axes.
        angle: (B,) in radians.
        softness: (B,) width of the edge in radii.
        contrast: (B,) signed, in units of the image's range.
        colour: (B, 3) how much each channel of a colour image takes part.
        value: (B, 3) in [0, 1], what ``filled`` draws towards.
        shift: (B, 2) in [0, 1), how far away ``pasted`` takes from.
        grain: (B,) cells across the image, of the texture or noise.
        blur: (B,) standard deviation of the Gaussian in sides of the image.
        edge: (B, 1, 128, 128) standard normal, of which the wobble of the edge is made.
        texture: (B, 1, 128, 128) likewise for texture and noise.
    """

    kind: Tensor
    place: Tensor
    radius: Tensor
    stretch: Tensor
    angle: Tensor
    softness: Tensor
    contrast: Tensor
    colour: Tensor
    value: Tensor
    shift: Tensor
    grain: Tensor
    blur: Tensor
    edge: Tensor
    texture: Tensor


def sample_lesions(count: int, generator: torch.Generator) -> Lesions:
    """Draw one lesion for each of ``count`` images.

    Args:
        count: number of images B.
        generator: of the CPU; the result depends on nothing else.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def even_in_log(low: float, high: float) -> Tensor:
        return uniform(math.log(low), math.log(high)).exp()

    sign = torch.where(torch.rand(count, generator=generator) < 0.6, 1.0, -1.0)
    return Lesions(
        kind=torch.randint(len(KINDS), (count,), generator=generator),
        place=uniform(0, 1),
        # the wobble makes them a fifth smaller
        radius=0.6 * even_in_log(*SIZES),
        stretch=uniform(-0.5, 0.5).exp(),
        angle=uniform(0, math.pi),
        softness=even_in_log(*SOFTNESS),
        contrast=sign * uniform(*CONTRAST),
        colour=1 + 0.5 * torch.randn(count, 3, generator=generator),
        value=uniform(0, 1, 3),
        shift=uniform(0.125, 0.875, 2),
        grain=even_in_log(16, 128),
        blur=uniform(*BLUR),
        edge=torch.randn(count, 1, _LATTICE, _LATTICE, generator=generator),
        texture=torch.randn(count, 1, _LATTICE, _LATTICE, generator=generator),
    )


def apply_lesions(image: Tensor, lesions: Lesions) -> tuple[Tensor, Tensor]:
    """Put a lesion into each image.

    Args:
        image: (B, C, S, S), float, C = 1 or 3, nominally in [0, 1].
        lesions: drawn for B images; moved to the image's device.

    Returns:
        The images with lesions, like ``image`` and within its range or [0, 1], and where they can
        be seen, (B, 1, S, S), float, in [0, 1]: zero where nothing changed visibly.
    """
    lesions = lesions.to(image.device)
    shape = _shapes(image, lesions)
    new = _inside(image, lesions)
    low = image.amin(dim=(1, 2, 3), keepdim=True).clamp_max(0)
    high = image.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    changed = image + shape * (torch.minimum(torch.maximum(new, low), high) - image)
    difference = (changed - image).abs().mean(dim=1, keepdim=True)
    seen = F.avg_pool2d(difference, 5, stride=1, padding=2) > VISIBLE
    return changed, shape * seen


def _inside(image: Tensor, lesions: Lesions) -> Tensor:
    """What each lesion is made of, everywhere in the image, like ``image``."""
    channels = image.shape[1]

    def each(x: Tensor) -> Tensor:
        """(B, 3) or (B,) → (B, C or 1, 1, 1), the first channel's where the image is grey."""
        wide = x[:, :channels] if x.ndim == 2 else x[:, None]
        return wide[:, :, None, None].to(image.dtype)

    def of(name: str) -> Tensor:
        return each(lesions.kind == KINDS.index(name)).bool()

    grain = _field(lesions.texture, lesions.grain, image.shape[-1])
    contrast = each(lesions.contrast)
    colour = each(lesions.colour) if channels == 3 else torch.ones_like(contrast)
    mottle = 0.3 * of("textured") + 0.8 * of("mottled")
    new = image + contrast * colour * (1 + mottle * grain)
    filled = image + 0.6 * (each(lesions.value) - image) + 0.05 * grain
    new = torch.where(of("filled"), filled, new)
    new = torch.where(of("pasted"), _elsewhere(image, lesions.shift), new)
    new = torch.where(of("blurred"), _blur(image, lesions.blur), new)
    return torch.where(of("noisy"), image + 0.7 * contrast.abs() * grain, new)


def _shapes(image: Tensor, lesions: Lesions) -> Tensor:
    """Soft ellipses with wobbling edges on the tissue, (B, 1, S, S), float, in [0, 1]."""
    side = image.shape[-1]
    grey = F.avg_pool2d(image.mean(dim=1, keepdim=True), 9, 1, 4, count_include_pad=False)
    tissue = (grey > TISSUE).flatten(1)
    tissue = tissue | ~tissue.any(dim=1, keepdim=True)
    ranks = tissue.long().cumsum(dim=1)
    wanted = (lesions.place * ranks[:, -1]).long() + 1
    centre = torch.searchsorted(ranks, wanted[:, None])[:, 0]

    def each(x: Tensor) -> Tensor:
        return x.to(image.dtype)[:, None, None]

    at = torch.arange(side, device=image.device, dtype=image.dtype)
    dy, dx = at[:, None] - each(centre // side), at - each(centre % side)
    cos, sin = each(lesions.angle.cos()), each(lesions.angle.sin())
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    stretch, radius = each(lesions.stretch), each(side * lesions.radius)
    distance = ((along * stretch).square() + (across / stretch).square()).sqrt() / radius
    wobble = _field(lesions.edge, (1 / lesions.radius).clamp(4, 64), side)[:, 0]
    inside = 1 - distance + 0.35 * wobble
    soft = torch.sigmoid(2 * inside / each(lesions.softness)) * (distance < 2.2)
    return soft[:, None]


def _field(noise: Tensor, cells: Tensor, side: int) -> Tensor:
    """Smooth noise with so many cells across the image, (B, 1, S, S), about standard normal."""
    at = (torch.arange(side, device=noise.device) + 0.5) / side  # in sides of the image
    reach = cells[:, None] * at * 2 / _LATTICE - 1
    y = reach[:, :, None].expand(-1, -1, side)
    grid = torch.stack([y.transpose(1, 2), y], dim=-1)
    return F.grid_sample(
        noise, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )


def _elsewhere(image: Tensor, shift: Tensor) -> Tensor:
    """The mirrored image, shifted by so many sides, round the border; like ``image``."""
    count, channels, side, _ = image.shape
    at = torch.arange(side, device=image.device)
    rows, columns = (at - (side * shift).long()[:, :, None]).remainder(side).unbind(dim=1)
    shape = (count, channels, side, side)
    moved = image.flip(-1).gather(2, rows[:, None, :, None].expand(shape))
    return moved.gather(3, columns[:, None, None, :].expand(shape))


def _blur(image: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur of each image by so many sides (B,), mirrored at the border."""
    count, channels, side, _ = image.shape
    sigma = (side * sigmas)[:, None]
    farthest = max(1, math.ceil(2.5 * side * BLUR[1]))
    at = torch.arange(-farthest, farthest + 1, device=image.device)
    kernel = torch.exp(-0.5 * (at / sigma).square())
    kernel = kernel * (at.abs() <= (2.5 * sigma).ceil().clamp_min(1))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(image.dtype)
    kernel = kernel.repeat_interleave(channels, dim=0)[:, None, None]
    groups = count * channels
    padded = F.pad(image.reshape(1, groups, side, side), (farthest,) * 4, mode="reflect")
    across = F.conv2d(padded, kernel, groups=groups)
    return F.conv2d(across, kernel.transpose(2, 3), groups=groups).view(image.shape)
