"""Probes: known changes made to normal images, to learn which scales to trust.

*Lesions* put something that does not belong there into a small region: a score should rise.
*Harmless* changes are those that acquisition and processing make to the whole image, such as a
softer reconstruction or another tone curve: a score should not care. No abnormal image is at hand,
so these stand in. Each is mild: a change that any scale finds tells none apart.

A probe takes images (B, 3, H, W) float in [0, 1] and a CPU generator and returns changed images of
the same shape, dtype and device, clamped to [0, 1]; the same generator state gives the same change.
Each image of a batch gets its own. S below is the length of the image's shorter side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.synthesis.perturbation import (
    apply_perturbation,
    patch_pixels,
    random_integers,
    sample_perturbation,
)
from scrd.synthesis.settings import NoiseSettings


@dataclass(frozen=True)
class Probe:
    """A change to normal images.

    Attributes:
        change: The function (image, generator) -> changed image, before clamping.
        kind: Whether a score should see it ("lesion") or not ("harmless").
    """

    change: Callable[[Tensor, torch.Generator], Tensor]
    kind: Literal["lesion", "harmless"]

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Apply the probe: (B, 3, H, W) float in [0, 1] to the same."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(
                f"a probe takes images of shape (B, 3, H, W), got {tuple(image.shape)}"
            )
        return self.change(image, generator).clamp(0, 1)


def simplex_patch(image: Tensor, generator: torch.Generator) -> Tensor:
    """Add simplex noise of strength 0.3 to a patch whose sides are uniform in [S/8, S/4]."""
    size = (image.shape[2], image.shape[3])
    settings = NoiseSettings(strength=0.3, min_side=max(1, min(size) // 8), max_side_fraction=1 / 4)
    perturbation = sample_perturbation(len(image), size, settings, generator)
    return apply_perturbation(image, perturbation, settings)[0]


def blob(image: Tensor, generator: torch.Generator) -> Tensor:
    """Add a bright or dark grey blob ``+-0.25 exp(-r^2 / 2 R^2)``.

    R is uniform in [0.04 S, 0.10 S] and the centre uniform over all places at least R from the
    border. The sign is random, except that a blob on a nearly black place (below 0.25) is bright
    and on a nearly white one (above 0.75) dark, since clamping would hide it otherwise.
    """
    count, _, height, width = image.shape
    draws = torch.rand(4, count, generator=generator)
    radius = (0.04 + 0.06 * draws[0]) * min(height, width)
    centre_y = radius + draws[1] * (height - 1 - 2 * radius)
    centre_x = radius + draws[2] * (width - 1 - 2 * radius)

    grey = (
        image.float()
        .mean(1)[torch.arange(count), centre_y.round().long(), centre_x.round().long()]
        .to("cpu")
    )
    sign = torch.where(draws[3] < 0.5, -1.0, 1.0)
    sign = torch.where(grey < 0.25, 1.0, torch.where(grey > 0.75, -1.0, sign))

    def profile(extent: int, centre: Tensor) -> Tensor:
        distance = torch.arange(extent) - centre[:, None]
        return torch.exp(-0.5 * (distance / radius[:, None]) ** 2)

    rows, columns = profile(height, centre_y), profile(width, centre_x)
    bump = 0.25 * sign[:, None, None] * rows[:, :, None] * columns[:, None, :]
    return image + bump[:, None].to(image)


def cut_paste(image: Tensor, generator: torch.Generator) -> Tensor:
    """Overwrite a patch with one from another place of the same image.

    Sides are uniform in [S/8, S/4]; source and destination are uniform over all pairs of different
    places.
    """
    count, _, height, width = image.shape
    shortest = torch.full((count,), max(1, min(height, width) // 8))
    longest = torch.full((count,), max(1, min(height, width) // 4))
    patch_height = random_integers(shortest, longest, generator)
    patch_width = random_integers(shortest, longest, generator)

    across = width - patch_width + 1
    places = (height - patch_height + 1) * across
    source = random_integers(torch.zeros_like(places), places - 1, generator)
    step = random_integers(torch.ones_like(places), places - 1, generator)
    target = (source + step) % places

    index, y, x = patch_pixels(patch_height, patch_width)
    source_y, source_x = (source // across)[index] + y, (source % across)[index] + x
    target_y, target_x = (target // across)[index] + y, (target % across)[index] + x
    changed = image.clone()
    changed[index, :, target_y, target_x] = image[index, :, source_y, source_x]
    return changed


def blur(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blur with a Gaussian of standard deviation 0.008 S, mirrored at the border.

    Nothing about it is random: the generator is not used.
    """
    sigma = 0.008 * min(image.shape[2:])
    radius = math.ceil(4 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(image).expand(3, 1, 1, -1)
    padded = F.pad(image, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def sharpen(image: Tensor, generator: torch.Generator) -> Tensor:
    """Add what :func:`blur` takes away; the generator is not used."""
    return 2 * image - blur(image, generator)


def noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise of standard deviation 0.03, the same in all channels."""
    drawn = torch.randn(len(image), 1, *image.shape[2:], generator=generator)
    return image + 0.03 * drawn.to(image)


def tone(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change the tone curve: ``gain * image^gamma``, gamma 0.75 or 1.33.

    Images in colour also get a gain per channel, uniform in [0.95, 1.05]; grey ones stay grey.
    """
    count = len(image)
    gamma = torch.where(torch.rand(count, generator=generator) < 0.5, 0.75, 1.33)
    gain = 0.95 + 0.1 * torch.rand(count, 3, generator=generator)
    in_colour = (image != image[:, :1]).flatten(1).any(1)
    gain = torch.where(in_colour[:, None], gain.to(image), 1.0)
    return gain[:, :, None, None] * image.clamp(0, 1) ** gamma.to(image)[:, None, None, None]


PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "simplex_patch": Probe(simplex_patch, "lesion"),
        "blob": Probe(blob, "lesion"),
        "cut_paste": Probe(cut_paste, "lesion"),
        "blur": Probe(blur, "harmless"),
        "sharpen": Probe(sharpen, "harmless"),
        "noise": Probe(noise, "harmless"),
        "tone": Probe(tone, "harmless"),
    }
)
"""All probes by name."""
