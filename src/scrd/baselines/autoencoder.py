"""Autoencoders: what a narrow network trained on normals cannot reproduce is abnormal."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from scrd.baselines.method import Answer, Baseline, Budget
from scrd.training.batches import batch_indices

WIDTHS = (16, 32, 64, 64)
"""Channels of the encoder's stages at strides 2, 4, 8, 16 (both papers); deeper stages keep 64."""

GRID = 4
"""Side of the grid at which the fully connected bottleneck begins: 64-pixel images, 4 stages."""

LATENT = 16
"""Length of the latent vector (both papers)."""

HIDDEN = 1024
"""Width of the fully connected layers around the latent vector (the benchmark's code)."""

VARIANCE_FLOOR = 1 / (12 * 255**2)
"""Variance of rounding to 8 bits: no pixel of the data can be known better than that."""


class ReconstructionBaseline(Baseline):
    """A network trained with Adam on its own input and scored by the mean of an error map.

    Grey images are repeated over three channels, so one network serves both kinds.

    Attributes:
        learning_rate: of Adam, constant.
        progress: part of the training that is done, in [0, 1), for a loss with a schedule.
    """

    learning_rate: float
    progress: float = 0.0

    @abstractmethod
    def loss(self, image: Tensor) -> Tensor:
        """Objective of a batch (B, 3, S, S), float32, in [0, 1]: a scalar."""

    @abstractmethod
    def error_map(self, image: Tensor) -> Tensor:
        """Abnormality per pixel of a batch (B, 3, S, S): (B, S, S), float32, non-negative."""

    def fit(self, images: Tensor) -> None:
        """Train for ``budget.iterations`` steps at a constant learning rate.

        Args:
            images: (N, C, S, S), float32, in [0, 1], C = 1 or 3, on the CPU.

        Raises:
            TrainingError: the loss is not finite at the end.
        """
        budget = self.budget
        self.to(budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        loss = torch.zeros(())
        self.train()
        for step in range(budget.iterations):
            self.progress = step / budget.iterations
            index = batch_indices(step, budget.batch_size, len(images), budget.seed)
            loss = self.loss(self.rgb(images[index]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.eval()
        self.require_finite(loss.detach())

    @torch.inference_mode()
    def score(self, images: Tensor) -> Answer:
        """Score a batch by its error map.

        Args:
            images: (B, C, S, S), as in :meth:`fit`.

        Returns:
            The map's mean, (B,), and the map, (B, S, S).
        """
        maps = self.error_map(self.rgb(images)).cpu()
        return Answer(maps.mean(dim=(1, 2)), maps)


def _widths(image_size: int) -> list[int]:
    """Channels of the halving stages that take an image to the grid, or to an odd side."""
    widths: list[int] = []
    side = image_size
    while side > GRID and side % 2 == 0:
        widths.append(WIDTHS[min(len(widths), len(WIDTHS) - 1)])
        side //= 2
    return widths


def _dense_autoencoder(image_size: int, out_channels: int) -> nn.Sequential:
    """(B, 3, S, S) to (B, out_channels, S, S) by way of a vector of length ``LATENT``."""
    widths = _widths(image_size)
    side = image_size >> len(widths)
    layers: list[nn.Module] = []
    for before, after in zip([3, *widths], widths, strict=False):
        layers += [
            nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    flat = widths[-1] * side * side
    layers += [
        nn.Flatten(),
        nn.Linear(flat, HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(inplace=True),
        nn.Linear(HIDDEN, LATENT),
        nn.Linear(LATENT, HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(inplace=True),
        nn.Linear(HIDDEN, flat),
        nn.Unflatten(1, (widths[-1], side, side)),
    ]
    for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    layers.append(nn.ConvTranspose2d(widths[0], out_channels, 4, stride=2, padding=1))
    return nn.Sequential(*layers)


class Autoencoder(ReconstructionBaseline):
    """AE: convolutional autoencoder scored by squared error.

    The plain autoencoder of the medical benchmarks: Baur et al., "Autoencoders for unsupervised
    anomaly segmentation in brain MR images", Medical Image Analysis 2021 (its *dense* variant),
    with the layers and the learning rate of Cai et al., "MedIAnomaly: a comparative study of
    anomaly detection in medical images", 2024: 4x4 convolutions of stride 2 with 16-32-64-64
    channels, fully connected layers around a latent vector of 16, the mirrored decoder, BatchNorm
    and ReLU except at the output, Adam at 1e-3, mean squared error.

    The benchmark's images have 64 pixels. Larger ones get further stages of 64 channels, so that
    the bottleneck always begins at a grid of about 4x4 and stays as narrow.
    """

    learning_rate = 1e-3

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.network = _dense_autoencoder(budget.image_size, 3)

    def loss(self, image: Tensor) -> Tensor:
        """Mean squared error."""
        return self.error_map(image).mean()

    def error_map(self, image: Tensor) -> Tensor:
        """Squared error, averaged over the channels."""
        reconstruction: Tensor = self.network(image)
        return (image - reconstruction).square().mean(dim=1)


class UncertaintyAutoencoder(ReconstructionBaseline):
    """AE-U: an autoencoder that also predicts how well each pixel can be predicted.

    Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction
    autoencoders", MICCAI 2020. The network of :class:`Autoencoder` (whose layers are that paper's)
    gives a mean mu and a log-variance per pixel and channel; the loss is the Gaussian negative
    log-likelihood (x - mu)^2 / sigma^2 + log sigma^2, the score the first term alone, averaged, so
    that an edge that is uncertain in every normal image does not count as abnormal.

    Departures: ``VARIANCE_FLOOR`` is added to sigma^2, since the loss has no lower bound where a
    pixel is constant over all normals (the black surround of MR slices); three output channels
    instead of one, as everywhere here.
    """

    learning_rate = 5e-4

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.network = _dense_autoencoder(budget.image_size, 6)

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (B, 3, S, S), of a batch (B, 3, S, S)."""
        mean, log_variance = self.network(image).chunk(2, dim=1)
        return mean, log_variance.exp() + VARIANCE_FLOOR

    def loss(self, image: Tensor) -> Tensor:
        """Gaussian negative log-likelihood without its constants, mean over pixels."""
        mean, variance = self.predict(image)
        return ((image - mean).square() / variance + variance.log()).mean()

    def error_map(self, image: Tensor) -> Tensor:
        """Squared error over variance, averaged over the channels."""
        mean, variance = self.predict(image)
        return ((image - mean).square() / variance).mean(dim=1)
