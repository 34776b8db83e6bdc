"""PaDiM: one Gaussian a position over teacher features of three scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from scrd.baselines.features import extract, extract_all, seeded_teacher, upsample
from scrd.baselines.method import Answer, Baseline, Budget

DIMENSIONS = 100
"""Channels kept, at random: Rd 100 of the paper, taken there of the 448 of ResNet-18."""

WIDE_DIMENSIONS = 550
"""Rd 550 of the paper, taken there of the 1,792 channels of WideResNet-50-2."""

WIDE_FROM = 1000
"""Teachers with this many channels or more over the three scales get ``WIDE_DIMENSIONS``."""

EPSILON = 0.01
"""ε, added to the diagonal of every covariance."""

SIGMA = 4.0
"""Gaussian smoothing of the map, in pixels of the input; one position at stride 4."""

_CHUNK = 2**25  # numbers of covariance that are factorised together, 128 MiB


class PaDiM(Baseline):
    """PaDiM: Defard, Setkov, Loesch, Audigier, ICPR Workshops 2021.

    Features of strides 8 and 16 are repeated over the positions of stride 4 that they cover (as
    in the paper, so nearest-neighbour), concatenated, and a random subset of channels is kept.
    Every position has a mean and a covariance over the training images, Eq. (1); its anomaly is
    the Mahalanobis distance, Eq. (2). The map is brought to the input's size, smoothed, and its
    maximum is the score.

    The covariances are accumulated batch by batch and replaced in place by their inverse factors:
    (S/4)² · d² float32 whatever the number of images, 164 MB at 256 pixels for d = 100 (5.0 GB
    for the d = 550 of a wide teacher).
    """

    channels: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        total = sum(self.teacher.channels)
        kept = min(total, DIMENSIONS if total < WIDE_FROM else WIDE_DIMENSIONS)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(budget.seed))
        self.register_buffer("channels", order[:kept].sort().values)
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("whitening", torch.empty(0))

    def fit(self, images: Tensor) -> None:
        """See the base class. One pass; only the subset of channels is drawn."""
        self.to(self.budget.device).eval()
        moments = PositionMoments()
        for features in extract_all(self.teacher, images, self.budget.device):
            moments.add(self._embed(features))
        self.mean, self.whitening = moments.mean, inverse_factors_(moments.covariance())

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are Mahalanobis distances."""
        embedding = self._embed(extract(self.teacher, images, self.budget.device))
        distances = position_distances(embedding, self.mean, self.whitening)
        rough = upsample(distances.T, images.shape[-1]).cpu().numpy()
        maps = torch.from_numpy(gaussian_filter(rough, (0, SIGMA, SIGMA)))
        return Answer(maps.amax(dim=(1, 2)), maps)

    def _embed(self, features: tuple[Tensor, ...]) -> Tensor:
        """(P, B, d), float32: the kept channels of every position at stride 4."""
        size = features[0].shape[-2:]
        stacked = torch.cat([F.interpolate(u.float(), size) for u in features], dim=1)
        return stacked[:, self.channels].flatten(2).permute(2, 0, 1).contiguous()


class PositionMoments:
    """Mean and covariance of every position, from batches, each seen once.

    Attributes:
        count: images seen.
        mean: (P, d), float32.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.empty(0)
        self._scatter = torch.empty(0)

    def add(self, embedding: Tensor) -> None:
        """Take in a batch (P, B, d), float32.

        The scatter of a union is the sum of the two scatters and, for the shift between the
        means, one outer product: Chan, Golub and LeVeque, The American Statistician 37 (1983).
        No sum of squares is ever formed, so float32 is enough.
        """
        positions, batch, dimension = embedding.shape
        if self.count == 0:
            self.mean = embedding.new_zeros(positions, dimension)
            self._scatter = embedding.new_zeros(positions, dimension, dimension)
        batch_mean = embedding.mean(dim=1)
        shift = batch_mean - self.mean
        total = self.count + batch
        outer = shift * (self.count * batch / total) ** 0.5
        rows = torch.cat([embedding - batch_mean[:, None], outer[:, None]], dim=1)
        self._scatter.baddbmm_(rows.mT, rows)
        self.mean += shift * (batch / total)
        self.count = total

    def covariance(self) -> Tensor:
        """Σ of Eq. (1), (P, d, d), float32: divided by N − 1, plus ε I. Ends the accumulation."""
        self._scatter /= max(1, self.count - 1)
        self._scatter.diagonal(dim1=1, dim2=2).add_(EPSILON)
        return self._scatter


def inverse_factors_(covariance: Tensor) -> Tensor:
    """Replace each matrix (P, d, d) by W, lower triangular, with Wᵀ W = Σ⁻¹; in place."""
    dimension = covariance.shape[-1]
    identity = torch.eye(dimension, device=covariance.device)
    step = max(1, _CHUNK // dimension**2)
    for start in range(0, len(covariance), step):
        some = covariance[start : start + step]
        factor = torch.linalg.cholesky(some)
        some.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))
    return covariance


def position_distances(embedding: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Mahalanobis distances, Eq. (2).

    Args:
        embedding: (P, B, d), float32.
        mean: (P, d), float32.
        whitening: (P, d, d), float32, from :func:`inverse_factors_`.

    Returns:
        (P, B), float32.
    """
    whitened = torch.bmm(embedding - mean[:, None], whitening.mT)
    distances: Tensor = torch.linalg.vector_norm(whitened, dim=2)
    return distances
