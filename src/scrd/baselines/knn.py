"""Nearest neighbour: distance of every position to the nearest of many normal ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.baselines.features import (
    draw_patches,
    extract,
    patch_features,
    seeded_teacher,
    upsample,
)
from scrd.baselines.method import Answer, Baseline, Budget

_CHUNK = 256  # positions compared together: 16 MiB of cosines with a full memory


class KNN(Baseline):
    """Nearest neighbour among random positions of normal images: what needs no training.

    A common reference since Bergman, Cohen, Hoshen, *Deep nearest neighbor anomaly detection*
    (2020), and Cohen and Hoshen, *Sub-image anomaly detection with deep pyramid correspondences*
    (2020), which compare with the positions of whole images. Here positions are at stride 8, see
    :func:`scrd.baselines.features.patch_features`, brought to unit length; 16,000 of those of the
    training normals are drawn at random. The map is the cosine distance to the nearest of them,
    1 - cos, in the unit of the distance maps of reverse distillation; its maximum is the score.
    """

    memory: Tensor
    remembered = 16_000  # normal positions, at most
    vectors = staticmethod(patch_features)

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        self.register_buffer("memory", torch.empty(0))

    def fit(self, images: Tensor) -> None:
        """See the base class. One pass; the positions are drawn where there are too many."""
        self.to(self.budget.device).eval()
        generator = torch.Generator().manual_seed(self.budget.seed)
        device, count = self.budget.device, self.remembered
        drawn = draw_patches(self.teacher, images, device, count, generator, self.vectors)
        self.memory = F.normalize(drawn, dim=1)

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are 1 - cos, in [0, 2]."""
        maps = upsample(self.distances(images), images.shape[-1]).cpu()
        return Answer(maps.amax(dim=(1, 2)), maps)

    def distances(self, images: Tensor) -> Tensor:
        """1 - cos of each of P positions to the nearest normal one: (B, P), on the device."""
        vectors = self.vectors(extract(self.teacher, images, self.budget.device))
        flat = nearest_cosine_distances(vectors.flatten(0, 1), self.memory)
        return flat.view(vectors.shape[:2])


def nearest_cosine_distances(patches: Tensor, memory: Tensor) -> Tensor:
    """Smallest 1 - cos to any remembered vector.

    Args:
        patches: (P, C), float32, of any length but zero.
        memory: (M, C), float32, of unit length.

    Returns:
        (P,), float32, in [0, 2].
    """
    unit = F.normalize(patches, dim=1)
    nearest = [(part @ memory.T).amax(dim=1) for part in torch.split(unit, _CHUNK)]
    return (1 - torch.cat(nearest)).clamp(0, 2)
