"""SimpleNet: a discriminator between normal features and the same with noise added."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.baselines.features import OncePerImage, extract, patch_features, seeded_teacher, upsample
from scrd.baselines.method import Answer, Baseline, Budget
from scrd.training.batches import batch_indices

NOISE = 0.015
"""Standard deviation of the noise on adapted features; implementation details of the paper."""

FEATURE_STD = 0.1
"""Standard deviation that the features of normals are brought to, ours: see the class."""

SCALE_IMAGES = 64
"""Images drawn to measure the standard deviation of the teacher's features."""

MARGIN = 0.5
"""Both thresholds of the truncated L1 loss; implementation details of the paper."""

SLOPE = 0.2
"""Slope of the discriminator's leaky ReLU (the paper's implementation details)."""

ADAPTOR_RATE, DISCRIMINATOR_RATE, WEIGHT_DECAY = 1e-4, 2e-4, 1e-5
"""Learning rates and weight decay of Adam (the paper's implementation details)."""


class SimpleNet(Baseline):
    """SimpleNet: Liu, Zhou, Xu, Wang, CVPR 2023.

    Patch features (:func:`scrd.baselines.features.patch_features`) pass a linear adaptor; a
    discriminator of two linear layers learns to tell them from copies with Gaussian noise, by a
    truncated L1 loss. Its negative output is the map, the largest over the positions the score.
    The paper's smoothing of the enlarged map acts on no image score and is left out.

    The noise has the printed standard deviation in absolute units, which the paper chose for the
    units of its own teacher. Features of EfficientNet-Lite0 have standard deviations around 4,
    where that noise is lost: after 600 iterations on brain MRI the discriminator told held-out
    clean from noisy normals in 50.0 % of the cases. So all features are divided by one constant
    that makes it ``FEATURE_STD``: 50.0 % still at 1, over 99 % at 0.1. That was decided on
    normals alone.

    The paper's 1,536 channels and 1,024 hidden units become C_2 + C_3 channels and as many hidden
    units, its 160 epochs the iterations and its batch of 4 the batch of the budget.
    """

    scale: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        width = sum(self.teacher.channels[1:])
        self.register_buffer("scale", torch.ones(()))
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            self.adaptor = nn.Linear(width, width)
            self.discriminator = nn.Sequential(
                nn.Linear(width, width),
                nn.BatchNorm1d(width),
                nn.LeakyReLU(SLOPE),
                nn.Linear(width, 1),
            )

    def fit(self, images: Tensor) -> None:
        """See the base class."""
        device = self.budget.device
        self.to(device).train()
        drawn = batch_indices(0, SCALE_IMAGES, len(images), self.budget.seed)
        self.scale = FEATURE_STD / self._embed(images[drawn]).var(dim=(0, 1)).mean().sqrt()
        embedded = OncePerImage(lambda some: (self._embed(some),), images)
        generator = torch.Generator(device).manual_seed(self.budget.seed)
        optimizer = torch.optim.Adam(
            [
                {"params": self.adaptor.parameters(), "lr": ADAPTOR_RATE},
                {"params": self.discriminator.parameters(), "lr": DISCRIMINATOR_RATE},
            ],
            weight_decay=WEIGHT_DECAY,
        )
        for step in range(self.budget.iterations):
            index = batch_indices(step, self.budget.batch_size, len(images), self.budget.seed)
            (patches,) = embedded(index)
            adapted = self.adaptor(patches.flatten(0, 1))
            noise = torch.empty_like(adapted).normal_(0, NOISE, generator=generator)
            normality = self.discriminator(torch.cat([adapted, adapted + noise])).squeeze(1)
            loss = truncated_l1(*normality.chunk(2))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.eval()

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are −D, without unit, of either sign."""
        adapted = self.adaptor(self._embed(images).flatten(0, 1))
        anomaly = -self.discriminator(adapted).view(len(images), -1)
        return Answer(anomaly.amax(dim=1).cpu(), upsample(anomaly, images.shape[-1]).cpu())

    def _embed(self, images: Tensor) -> Tensor:
        """(B, P, C_2 + C_3), float32, scaled patch features, on the device of the budget."""
        return patch_features(extract(self.teacher, images, self.budget.device)) * self.scale


def truncated_l1(normal: Tensor, noisy: Tensor) -> Tensor:
    """Mean of max(0, th − D(q)) + max(0, th + D(q⁻)), th = ``MARGIN``.

    Args:
        normal: D(q), (M,), float: the discriminator on adapted features.
        noisy: D(q⁻), (M,), float: on the same with noise.

    Returns:
        (), float: 0 where every value is on its side by the margin.
    """
    return (F.relu(MARGIN - normal) + F.relu(MARGIN + noisy)).mean()
