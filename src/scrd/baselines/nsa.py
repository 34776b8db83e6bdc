"""NSA: find patches of other normal images that were blended in without a seam."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from scrd.baselines.method import Answer, Baseline, Budget
from scrd.baselines.poisson import poisson_blend
from scrd.training.batches import batch_indices

PATCHES = 3
"""Patches at most: one, then one more for each of the others by the toss of a coin."""

WIDTH_OFFSET, WIDTH_SHAPE, WIDTH_SCALE = 0.1, 2, 0.06
"""Side of a patch over the image's: offset + Gamma(shape, scale)."""

WIDTH_BOUNDS = (0.06, 0.8)
"""Least and largest side of a patch over the image's."""

RESIZE_STD, RESIZE_BOUNDS = 0.5, (0.7, 1.3)
"""Patches are resized by a factor from N(1, std²), cut off at the bounds."""

BACKGROUND = 20 / 255
"""Pixels up to this are background."""

MIN_OBJECT, MIN_OVERLAP = 0.7, 0.7
"""Foreground of a patch, and the part of it that must fall on foreground of the destination."""

ATTEMPTS = 200
"""Draws of a place before a patch is given up."""

TOLERANCE = 1 / 255
"""Change of a pixel, averaged over the channels, that makes it abnormal at all."""

STEEPNESS, MIDPOINT = 255 / 2, 4 / 255
"""k and x0 of the labels' logistic."""

MASK_FILTER, LABEL_FILTER = 5, 11
"""Diameters of the median filters of mask and label, in pixels of a 256-pixel image."""

CHANNELS = (32, 64, 128, 256)
"""Channels of the encoder's four stages: half of ResNet-18's."""

DECODER = (128, 64, 32, 16)
"""Channels between encoder and decoder, and after each of the decoder's blocks."""

RATE, LAST_RATE = 1e-3, 1e-6
"""Ends of the cosine schedule of Adam's learning rate."""


def _uniform_corner(free: tuple[int, int], generator: torch.Generator) -> tuple[int, int]:
    top = int(torch.randint(free[0] + 1, (), generator=generator))
    return top, int(torch.randint(free[1] + 1, (), generator=generator))


def _width(side: int, generator: torch.Generator) -> int:
    """Side of a patch in pixels; a Gamma of shape 2 is the sum of two exponentials."""
    gamma = torch.empty(WIDTH_SHAPE).exponential_(generator=generator).sum() * WIDTH_SCALE
    share = min(max(WIDTH_OFFSET + float(gamma), WIDTH_BOUNDS[0]), WIDTH_BOUNDS[1])
    return max(3, round(side * share))


def _resized(patch: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """(C, h, w) at another size of nearly the same proportions, within the bounds of a patch."""
    factor = 1 + RESIZE_STD * float(torch.randn((), generator=generator))
    factor = min(max(factor, RESIZE_BOUNDS[0]), RESIZE_BOUNDS[1])
    size = [max(3, min(round(factor * n), round(WIDTH_BOUNDS[1] * side))) for n in patch.shape[1:]]
    return F.interpolate(patch[None], size, mode="bilinear", align_corners=False)[0]


def _add_patch(image: Tensor, source: Tensor, generator: torch.Generator) -> Tensor:
    """Blend one patch of ``source`` into ``image``, (C, S, S) both; the image where none fits."""
    side = image.shape[-1]
    is_object = image.mean(dim=0) > BACKGROUND
    for _ in range(ATTEMPTS):
        size = (_width(side, generator), _width(side, generator))
        top, left = _uniform_corner((side - size[0], side - size[1]), generator)
        patch = source[:, top : top + size[0], left : left + size[1]]
        if (patch.mean(dim=0) > BACKGROUND).float().mean() > MIN_OBJECT:
            break
    else:
        return image
    patch = _resized(patch, side, generator)
    in_patch = patch.mean(dim=0) > BACKGROUND
    height, width = in_patch.shape
    for _ in range(ATTEMPTS):
        top, left = _uniform_corner((side - height, side - width), generator)
        here = (slice(top, top + height), slice(left, left + width))
        if (in_patch & is_object[here]).sum() > MIN_OVERLAP * in_patch.sum():
            break
    else:
        return image
    changed = image.clone()
    blended = poisson_blend(patch.numpy(), image[:, here[0], here[1]].numpy())
    changed[:, here[0], here[1]] = torch.from_numpy(blended).clamp(0, 1)
    return changed


def _disc(diameter: int, side: int) -> NDArray[np.bool_]:
    radius = round((diameter - 1) / 2 * side / 256)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y**2 + x**2 <= radius**2)


def soft_label(image: Tensor, changed: Tensor) -> Tensor:
    """How abnormal each pixel of a changed image is.

    Args:
        image: (C, S, S), float32, in [0, 1].
        changed: same.

    Returns:
        (S, S), float32, in [0, 1]: the logistic function, of steepness ``STEEPNESS`` and
        midpoint ``MIDPOINT``, of the median-filtered mean absolute difference; 0 where that is
        within ``TOLERANCE``.
    """
    difference = (image - changed).abs().mean(dim=0).numpy()
    side = difference.shape[-1]
    is_changed = median_filter(
        (difference > TOLERANCE).astype(np.uint8), footprint=_disc(MASK_FILTER, side)
    )
    smooth = median_filter(difference * is_changed, footprint=_disc(LABEL_FILTER, side))
    logistic = torch.sigmoid(STEEPNESS * (torch.from_numpy(smooth) - MIDPOINT))
    return logistic * torch.from_numpy(is_changed)


def synthesize(image: Tensor, source: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make a natural synthetic anomaly.

    Args:
        image: (C, S, S), float32, in [0, 1], on the CPU. Left unchanged.
        source: same shape: another normal image.
        generator: of the CPU.

    Returns:
        The image with one to ``PATCHES`` patches of the source, in [0, 1], and its label, (S, S),
        see :func:`soft_label`.
    """
    changed = _add_patch(image, source, generator)
    for _ in range(PATCHES - 1):
        if torch.rand((), generator=generator) < 0.5:
            changed = _add_patch(changed, source, generator)
    return changed, soft_label(image, changed)


def _upsampling_block(before: int, after: int) -> nn.Sequential:
    """Twice the size, then a residual block."""
    shortcut = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        BasicBlock(before, after, downsample=shortcut),
    )


class NSA(Baseline):
    """NSA (logistic): a network that tells where patches of other images were blended in.

    Schlüter, Tan, Hou, Kainz, "Natural synthetic anomalies for self-supervised anomaly detection
    and localization", ECCV 2022. In each training image up to three rectangles are replaced by
    resized ones of another normal image, with Poisson blending, which leaves no seam; an
    encoder-decoder, a ResNet-18 from scratch with a narrow decoder and no skip connections,
    learns with binary cross-entropy where and how strongly (:func:`soft_label`). The map is its
    output, the score the map's mean, as the paper scores images.

    Sizes, numbers and labels of patches are the paper's for chest X-rays.

    Departures: half of the encoder's channels; the decoder enlarges by interpolation before each
    of its three residual blocks, instead of by transposed convolutions in them; a patch lies
    within its image instead of being cut off at the border; training images are not turned by up
    to 3 degrees and shifted by up to 3 of 224 pixels. At full width 300 steps of 16 images at 128
    pixels would take a CPU core more than five minutes.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.encoder = ResNet(
                BasicBlock,  # type: ignore[arg-type]
                (2, 2, 2, 2),
                num_classes=0,
                channels=CHANNELS,
            )
            self.decoder = nn.Sequential(
                nn.Conv2d(CHANNELS[-1], DECODER[0], 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(DECODER[0], DECODER[0], 1),
                nn.ReLU(inplace=True),
                *(_upsampling_block(*pair) for pair in zip(DECODER, DECODER[1:], strict=False)),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.ConvTranspose2d(DECODER[-1], 1, 7, stride=2, padding=3, output_padding=1),
            )

    def logits(self, image: Tensor) -> Tensor:
        """Log-odds of abnormal pixels, (B, S, S), of a batch (B, 1 or 3, S, S)."""
        logits: Tensor = self.decoder(self.encoder.forward_features(self.rgb(image)))
        return logits[:, 0]

    def fit(self, images: Tensor) -> None:
        """Train for ``budget.iterations`` steps on synthetic anomalies.

        Args:
            images: (N, C, S, S), float32, in [0, 1], C = 1 or 3, on the CPU.

        Raises:
            TrainingError: the loss is not finite at the end.
        """
        budget = self.budget
        self.to(budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(self.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, max(1, budget.iterations), LAST_RATE
        )
        generator = torch.Generator().manual_seed(budget.seed)
        loss = torch.zeros(())
        self.train()
        for step in range(budget.iterations):
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            offset = torch.randint(1, max(2, len(images)), index.shape, generator=generator)
            sources = images[(index + offset) % len(images)]
            made = [
                synthesize(*pair, generator) for pair in zip(images[index], sources, strict=True)
            ]
            changed, labels = (torch.stack(parts) for parts in zip(*made, strict=True))
            loss = F.binary_cross_entropy_with_logits(
                self.logits(changed), labels.to(budget.device)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        self.eval()
        self.require_finite(loss.detach())

    @torch.inference_mode()
    def score(self, images: Tensor) -> Answer:
        """Score a batch.

        Args:
            images: (B, C, S, S), as in :meth:`fit`.

        Returns:
            The map's mean, (B,), and the map, (B, S, S), in [0, 1].
        """
        maps = self.logits(images).sigmoid().cpu()
        return Answer(maps.mean(dim=(1, 2)), maps)
