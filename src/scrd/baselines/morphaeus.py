"""MorphAEus: an autoencoder whose reconstruction is moved into place before it is compared."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.baselines.autoencoder import ReconstructionBaseline
from scrd.baselines.features import seeded_teacher
from scrd.baselines.method import Budget

WIDTHS = (16, 32, 64, 128, 256)
"""Channels at strides 2, 4, 8, 16, 32; deeper stages keep 256 (the authors' configuration)."""

DEFORMER_WIDTH = 32
"""Channels of the deformer's stages (the authors' configuration)."""

DEFORMER_STAGES = 3
"""Finest scales of encoder and decoder that the deformer reads: strides 8, 4, 2."""

SQUARINGS = 7
"""Steps of scaling and squaring that integrate the velocity field."""

WINDOW = 9
"""Side of the local correlation's window in pixels."""

PERCEPTUAL_WEIGHT = 0.05
"""Factor alpha of the perceptual loss."""

SMOOTHNESS = (1e-3, 3.0)
"""First and last factor beta of the deformation's smoothness."""

DEFORM_FROM, SMOOTHNESS_UNTIL = 10 / 500, 200 / 500
"""Parts of the training after which the deformer is trained, and beta stays at its last value."""

_EPSILON = 1e-9  # of squared variances of images in [0, 1]: far below anything visible


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Move pixels: the result at p is the image at p + d(p), bilinear between pixels.

    Args:
        image: (B, C, H, W), float.
        displacement: d, (B, 2, H, W), float: pixels down, pixels to the right.

    Returns:
        (B, C, H, W). Beyond the border the image is continued by its outermost pixels.
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=image.device)[:, None] + displacement[:, 0]
    columns = torch.arange(width, device=image.device) + displacement[:, 1]
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=True)


def integrate(velocity: Tensor) -> Tensor:
    """Displacement after unit time of a stationary velocity field, by scaling and squaring.

    Args:
        velocity: (B, 2, H, W), float, in pixels, as for :func:`warp`.

    Returns:
        (B, 2, H, W): a field that, for smooth velocities, folds nothing over.
    """
    displacement: Tensor = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        displacement = displacement + warp(displacement, displacement)
    return displacement


def local_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Squared normalised cross-correlation in a window around each pixel (LNCC).

    Args:
        first: (B, C, H, W), float, in [0, 1].
        second: same.

    Returns:
        (B, C, H, W), in [0, 1] but for rounding; 0 where either is constant.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, WINDOW, 1, WINDOW // 2, count_include_pad=False)

    means = mean(first), mean(second)
    covariance = mean(first * second) - means[0] * means[1]
    variances = [
        (mean(x.square()) - m.square()).clamp_min(0)
        for x, m in zip((first, second), means, strict=True)
    ]
    return covariance.square() / (variances[0] * variances[1] + _EPSILON)


def roughness(field: Tensor) -> Tensor:
    """Mean squared difference of neighbours of a (B, 2, H, W) field, over both directions."""
    down, right = field.diff(dim=2).square().mean(), field.diff(dim=3).square().mean()
    return (down + right) / 2


def _down(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.SiLU(inplace=True))


def _up(before: int, after: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(
        before, after, 3, stride=2, padding=1, output_padding=1, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.SiLU(inplace=True))


class MorphAEus(ReconstructionBaseline):
    """MorphAEus: a deformable autoencoder.

    Bercea, Rueckert, Schnabel, "What do AEs learn? Challenging common assumptions in unsupervised
    anomaly detection", MICCAI 2023. A deep convolutional autoencoder, halved down to a vector,
    gives a global prior of the image; a deformer reads the finest three scales of its encoder and
    decoder and estimates a velocity field, whose integral moves the prior's pixels towards the
    image. The loss of the prior is the squared error plus ``PERCEPTUAL_WEIGHT`` times a perceptual
    one; that of the deformation 1 minus the local correlation, of the moved prior with the image
    and of the image, moved back, with the prior, plus the roughness of the field, whose factor
    grows (``SMOOTHNESS``). The map is the absolute residual of the moved prior, the score its mean.
    The perceptual difference acts in training alone, as in the authors' evaluation.

    Departures: the perceptual loss looks through the teacher of the budget instead of VGG-19, and
    each scale is divided by the mean square of the image's own features, since the weight was
    chosen for the units of VGG; three channels in and out, whose mean the deformation loss sees.
    Images whose side is no power of two are halved down to an odd side. The widths are the
    authors'.
    """

    learning_rate = 5e-4

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        side, widths = budget.image_size, [3]
        while side % 2 == 0:
            widths.append(WIDTHS[min(len(widths), len(WIDTHS)) - 1])
            side //= 2
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.encoder = nn.ModuleList(
                _down(*pair) for pair in zip(widths, widths[1:], strict=False)
            )
            mirrored = [*widths[:0:-1], widths[1]]
            self.decoder = nn.ModuleList(
                _up(*pair) for pair in zip(mirrored, mirrored[1:], strict=False)
            )
            self.head = nn.Conv2d(widths[1], 3, 3, padding=1)
            self.deformer = nn.ModuleList(
                _up(2 * width + (DEFORMER_WIDTH if k else 0), DEFORMER_WIDTH)
                for k, width in enumerate(WIDTHS[:DEFORMER_STAGES][::-1])
            )
            self.velocity = nn.Conv2d(DEFORMER_WIDTH, 2, 3, padding=1)
            # the first deformation is nearly none
            nn.init.normal_(self.velocity.weight, std=1e-5)
            assert self.velocity.bias is not None
            nn.init.zeros_(self.velocity.bias)

    def reconstruct(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Prior (B, 3, S, S), in [0, 1], and velocity field (B, 2, S, S), in pixels."""
        encoded, decoded = [], []
        latent = image
        for stage in self.encoder:
            latent = stage(latent)
            encoded.append(latent)
        for stage in self.decoder:
            latent = stage(latent)
            decoded.append(latent)
        flow = image[:, :0]
        for k, stage in enumerate(self.deformer):
            level = DEFORMER_STAGES - k  # strides 8, 4, 2
            pair = encoded[level - 1], decoded[-level - 1]
            flow = stage(torch.cat([*pair, flow] if k else pair, dim=1))
        return self.head(latent).sigmoid(), self.velocity(flow)

    def perceptual(self, image: Tensor, prior: Tensor) -> Tensor:
        """Squared difference of teacher features, relative to the image's, mean of the scales."""
        pairs = zip(self.teacher(image), self.teacher.features(prior), strict=True)
        terms = [(u - v).square().mean() / u.square().mean() for u, v in pairs]
        return torch.stack(terms).mean()

    def loss(self, image: Tensor) -> Tensor:
        """Loss of the prior and, after the first steps, of the deformation."""
        prior, velocity = self.reconstruct(image)
        loss = F.mse_loss(prior, image) + PERCEPTUAL_WEIGHT * self.perceptual(image, prior)
        if self.progress < DEFORM_FROM:
            return loss
        beta = max(SMOOTHNESS[0], SMOOTHNESS[1] * min(1.0, self.progress / SMOOTHNESS_UNTIL))
        image, prior = image.mean(dim=1, keepdim=True), prior.mean(dim=1, keepdim=True)
        there = local_correlation(image, warp(prior, integrate(velocity))).mean()
        back = local_correlation(prior, warp(image, integrate(-velocity))).mean()
        return loss + 1 - (there + back) / 2 + beta * roughness(velocity)

    def fit(self, images: Tensor) -> None:
        """See the base class. The teacher is of the loss alone, and is let go."""
        super().fit(images)
        del self.teacher

    def error_map(self, image: Tensor) -> Tensor:
        """Absolute residual of the moved prior, averaged over the channels."""
        prior, velocity = self.reconstruct(image)
        return (image - warp(prior, integrate(velocity))).abs().mean(dim=1)
