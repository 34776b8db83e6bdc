"""MemAE: reconstruct from a memory of normal patterns instead of from the image's own code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.baselines.autoencoder import ReconstructionBaseline
from scrd.baselines.method import Budget

MEMORY_SIZE = 500
"""Memory items N (the paper's number for CIFAR-10; it uses 100 for MNIST, 2,000 for video)."""

SHRINKAGE = 1 / MEMORY_SIZE
"""Threshold lambda, from the paper's interval [1/N, 3/N].

The lower end is the one at which no row can be emptied: the largest of N weights that sum to 1 is
at least 1/N. At 2/N the nearly uniform rows of an untrained memory vanish, and with them every
gradient.
"""

ENTROPY_WEIGHT = 0.0002
"""Factor of the entropy term (the paper's value)."""

WIDTHS = (16, 32, 32, 64)
"""Channels at strides 2, 4, 8, 16: a quarter of the paper's 64-128-128-256 for CIFAR-10.

At full width 600 steps of 16 images at 128 pixels would take a CPU core about ten minutes.
"""

_EPSILON = 1e-12


def shrink(weights: Tensor, threshold: float = SHRINKAGE) -> Tensor:
    """Hard shrinkage by a continuous function, then L1 normalisation of each row.

    Args:
        weights: w, (..., N), float, non-negative, rows sum to 1.
        threshold: lambda.

    Returns:
        max(w - lambda, 0) w / (|w - lambda| + eps), rows scaled to sum to 1; (..., N).
    """
    excess = weights - threshold
    kept = F.relu(excess) * weights / (excess.abs() + _EPSILON)
    return F.normalize(kept, p=1.0, dim=-1)


class Memory(nn.Module):
    """N trained vectors, read by similarity.

    Attributes:
        items: (N, C), float32, trained with the network.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        bound = channels**-0.5
        self.items = nn.Parameter(torch.empty(size, channels).uniform_(-bound, bound))

    def address(self, query: Tensor) -> Tensor:
        """Weights of the items: shrunk softmax of the cosine similarities.

        Args:
            query: (..., C), float.

        Returns:
            (..., N), float, non-negative, sparse, rows sum to 1 (to 0 for a query of zeros, which
            is like no item).
        """
        similarity = F.normalize(query, dim=-1) @ F.normalize(self.items, dim=-1).T
        return shrink(similarity.softmax(dim=-1))

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Replace the vector at each position by what the memory holds for it.

        Args:
            latent: (B, C, H, W), float.

        Returns:
            The vectors read, (B, C, H, W), and the weights, (B, H, W, N).
        """
        weights = self.address(latent.permute(0, 2, 3, 1))
        return (weights @ self.items).permute(0, 3, 1, 2), weights


def addressing_entropy(weights: Tensor) -> Tensor:
    """Entropy of the rows of (..., N) weights in nats, averaged over the rows; 0 ln 0 is 0."""
    return -torch.xlogy(weights, weights.clamp_min(_EPSILON)).sum(dim=-1).mean()


class MemAE(ReconstructionBaseline):
    """MemAE: an autoencoder whose decoder only sees combinations of memorised normal patterns.

    Gong et al., "Memorizing normality to detect anomaly: memory-augmented deep autoencoder for
    unsupervised anomaly detection", ICCV 2019. The memory of ``MEMORY_SIZE`` items is trained by
    backpropagation and addressed at each latent position (S/16 x S/16 of them) by softmax of
    cosine similarities, hard shrinkage and renormalisation; the loss is the mean squared error
    plus ``ENTROPY_WEIGHT`` times the entropy of the addressing weights; the score is the squared
    error. Layers as the paper's for CIFAR-10: 3x3 convolutions of stride 2 and their transposes,
    each but the last followed by BatchNorm and ReLU, no fully connected layer.

    Departures: a quarter of the paper's channels (``WIDTHS``), and a learning rate of 1e-3 instead
    of 1e-4, which the paper pairs with far more steps (after 300 steps at 128 pixels the error on
    held-out normal MR slices is 0.016 with 1e-3, 0.035 with 1e-4).
    """

    learning_rate = 1e-3

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            encoder: list[nn.Module] = []
            decoder: list[nn.Module] = []
            for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
                encoder += [
                    nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(inplace=True),
                ]
            mirrored = (WIDTHS[-1], *WIDTHS[::-1])
            for before, after in zip(mirrored, mirrored[1:-1], strict=False):
                decoder += [
                    nn.ConvTranspose2d(
                        before, after, 3, stride=2, padding=1, output_padding=1, bias=False
                    ),
                    nn.BatchNorm2d(after),
                    nn.ReLU(inplace=True),
                ]
            decoder.append(
                nn.ConvTranspose2d(mirrored[-2], 3, 3, stride=2, padding=1, output_padding=1)
            )
            self.encoder = nn.Sequential(*encoder)
            self.memory = Memory(MEMORY_SIZE, WIDTHS[-1])
            self.decoder = nn.Sequential(*decoder)

    def reconstruct(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, 3, S, S) and addressing weights (B, S/16, S/16, N) of a batch."""
        latent, weights = self.memory(self.encoder(image))
        return self.decoder(latent), weights

    def loss(self, image: Tensor) -> Tensor:
        """Mean squared error plus the weighted entropy of the addressing."""
        reconstruction, weights = self.reconstruct(image)
        return F.mse_loss(reconstruction, image) + ENTROPY_WEIGHT * addressing_entropy(weights)

    def error_map(self, image: Tensor) -> Tensor:
        """Squared error, averaged over the channels."""
        return (image - self.reconstruct(image)[0]).square().mean(dim=1)
