"""AnomalyDINO: a vision transformer's tokens, each against the nearest of many normal ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from scrd.baselines.features import upsample
from scrd.baselines.knn import KNN
from scrd.baselines.method import Answer

TOP = 0.01
"""Share of an image's tokens, the farthest, whose mean distance is the score."""

KERNEL, SMOOTHING = 33, 4.0
"""Side and standard deviation, in pixels, of the Gaussian that smooths the map."""


def deepest_tokens(features: tuple[Tensor, ...]) -> Tensor:
    """The deepest map's positions, which are a vision transformer's own tokens.

    Args:
        features: u_1, u_2, u_3, see :func:`scrd.baselines.features.extract`. With patches of 14 or
            16 pixels u_3 has the transformer's own grid and is not resampled.

    Returns:
        (B, P, C_3), float32, P = (S/16)² positions, row by row.
    """
    return features[-1].float().flatten(2).mT.contiguous()


def tail_mean(distances: Tensor) -> Tensor:
    """Mean of the highest 1 % of (B, P) distances, at least of one: (B,)."""
    count = max(1, int(TOP * distances.shape[1]))
    return distances.topk(count, dim=1).values.mean(dim=1)


class AnomalyDINO(KNN):
    """AnomalyDINO: Damm, Laszkiewicz, Lederer, Fischer, WACV 2025.

    "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2". Trains nothing.
    The tokens of the normals are remembered, and the cosine distance of each token of an image to
    the nearest of them is taken. The mean of the highest 1 % is the score; the map is the
    distances, enlarged and smoothed.

    It differs from ``knn`` in what a position is: a single token of one layer, neither averaged
    over its neighbours nor interpolated; in remembering all of them up to a bound; and in the mean
    of the farthest instead of the maximum.

    Departures: a teacher is cut off after three quarters of its depth, so that tokens are those of
    the ninth of twelve blocks, where the paper has the last; of more than 100,000 tokens that many
    are drawn at random, where the paper, made for few normals, keeps all; images have the budget's
    size, where the paper has 448 pixels and more; no rotated copies of normals, and no mask of the
    object, both of which the paper decides on by the kind of object. Any teacher will do, whose
    deepest map then stands in for tokens.
    """

    remembered = 100_000  # of 390 images of 256 pixels; 150 MiB of a ViT-S
    vectors = staticmethod(deepest_tokens)

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are 1 - cos, in [0, 2]."""
        distances = self.distances(images)
        maps = upsample(distances, images.shape[-1]).unsqueeze(1)
        maps = gaussian_blur(maps, KERNEL, SMOOTHING).squeeze(1)
        return Answer(tail_mean(distances).cpu(), maps.cpu())
