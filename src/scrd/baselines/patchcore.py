"""PatchCore: distance of patch features to a coreset of those of normal images."""

from __future__ import annotations

import torch
from torch import Tensor

from scrd.baselines.features import (
    draw_patches,
    extract,
    patch_features,
    seeded_teacher,
    upsample,
)
from scrd.baselines.method import Answer, Baseline, Budget

CORESET_FRACTION = 0.01
"""Share of all patches that is remembered: PatchCore-1% of the paper."""

BANK_LIMIT = 6_000
"""Most patches remembered, ours: 1 % of 3,000 images at 256 pixels would be 30,720."""

POOL_LIMIT = 100_000
"""Most patches that the coreset is chosen from, drawn at random, ours: the greedy choice costs
bank x pool distances."""

PROJECTED = 128
"""Dimensions of the random projection in which the coreset is chosen; the paper names the
projection (Johnson-Lindenstrauss, section 3.2), not its size."""

NEIGHBOURS = 9
"""Remembered patches that re-weight the score of an image; the paper's b, whose value the
experiments leave open."""


class PatchCore(Baseline):
    """PatchCore: Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, CVPR 2022.

    Patches are the positions at stride 8, see :func:`scrd.baselines.features.patch_features`. A
    greedy k-center choice of those of the training normals is remembered; the map is the
    Euclidean distance to the nearest remembered patch, and the score that of the farthest patch,
    re-weighted by how isolated its nearest neighbour is (section 3.3). Distances are in the
    teacher's own units, as in the paper, and the weight depends on them through an exponential.
    The score is taken before the map is enlarged, which is not smoothed.
    """

    bank: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        self.register_buffer("bank", torch.empty(0))

    def fit(self, images: Tensor) -> None:
        """See the base class. One pass; the pool, the projection and the start are drawn."""
        self.to(self.budget.device).eval()
        generator = torch.Generator().manual_seed(self.budget.seed)
        total = len(images) * (images.shape[-1] // 8) ** 2
        pool = draw_patches(self.teacher, images, self.budget.device, POOL_LIMIT, generator)
        count = max(NEIGHBOURS, min(BANK_LIMIT, round(CORESET_FRACTION * total)))
        start = int(torch.randint(len(pool), (), generator=generator))
        projected = pool
        if pool.shape[1] > PROJECTED:
            projection = torch.randn(pool.shape[1], PROJECTED, generator=generator)
            projected = pool @ (projection / PROJECTED**0.5).to(pool.device)
        self.bank = pool[greedy_k_center(projected, min(count, len(pool)), start)]

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are Euclidean distances, the latter re-weighted."""
        patches = patch_features(extract(self.teacher, images, self.budget.device))
        # one image at a time: P x bank distances are what the memory holds
        answers = [nearest_distances(p, self.bank) for p in patches]
        scores = torch.stack(
            [
                reweighted_score(p, self.bank, distance, nearest)
                for p, (distance, nearest) in zip(patches, answers, strict=True)
            ]
        )
        distances = torch.stack([distance for distance, _ in answers])
        return Answer(scores.cpu(), upsample(distances, images.shape[-1]).cpu())


def greedy_k_center(points: Tensor, count: int, start: int) -> Tensor:
    """Choose points that cover the rest: always the one farthest from those already chosen.

    Gonzalez, Theoretical Computer Science 38 (1985): the largest distance of any point to the
    nearest chosen one is at most twice the smallest that ``count`` points can reach.

    Args:
        points: (N, D), float32.
        count: how many, in [1, N].
        start: index of the first one.

    Returns:
        (count,), int64, indices without repetition, on the device of ``points``.
    """
    points = points - points.mean(dim=0)  # short vectors lose fewest digits in |a|² − 2ab + |b|²
    squares = points.square().sum(dim=1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    index = torch.tensor([start], device=points.device)
    for i in range(count):
        chosen[i : i + 1] = index
        centre = points.index_select(0, index).squeeze(0)
        distance = torch.addmv(squares, points, centre, alpha=-2).add_(centre.square().sum())
        torch.minimum(nearest, distance, out=nearest)
        nearest.index_fill_(0, index, -torch.inf)
        index = nearest.argmax().view(1)
    return chosen


def nearest_distances(patches: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest remembered patch, and which one it is.

    Args:
        patches: (P, C), float32.
        bank: (M, C), float32.

    Returns:
        (P,), float32, and (P,), int64.
    """
    squared = torch.addmm(bank.square().sum(dim=1), patches, bank.T, alpha=-2)
    nearest = squared.argmin(dim=1)
    # once more, without the cancellation of the product form
    return (patches - bank[nearest]).norm(dim=1), nearest


def reweighted_score(patches: Tensor, bank: Tensor, distance: Tensor, nearest: Tensor) -> Tensor:
    """Score of an image, section 3.3 of the paper, Eq. (7).

    With m the farthest patch, m* its nearest remembered one and N_b(m*) the b remembered patches
    nearest to m* (itself among them): (1 − exp‖m − m*‖ / Σ_{n ∈ N_b(m*)} exp‖m − n‖) · ‖m − m*‖.

    Args:
        patches: (P, C), float32.
        bank: (M, C), float32.
        distance: (P,), float32, and
        nearest: (P,), int64, both from :func:`nearest_distances`.

    Returns:
        (), float32.
    """
    worst = distance.argmax()
    around_centre = (bank - bank[nearest[worst]]).norm(dim=1)
    around = around_centre.topk(min(NEIGHBOURS, len(bank)), largest=False).indices
    to_around = (bank[around] - patches[worst]).norm(dim=1)
    share = (distance[worst] - to_around.logsumexp(dim=0)).exp()
    score: Tensor = distance[worst] * (1 - share)
    return score
