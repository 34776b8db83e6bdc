"""A trivial baseline: the brightest place of the image."""

from __future__ import annotations

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from scrd.baselines.method import Answer, Baseline

SIDES_PER_SIGMA = 32
"""Side of the input over the standard deviation of the blur."""


class Brightness(Baseline):
    """The blurred grey image as anomaly map; nothing is learnt.

    Where lesions are bright it finds them without knowing anything of normals, so a map that points
    worse has no merit there. The channels' mean is blurred by a Gaussian with a standard deviation
    of 1/32 of the side; the maximum of that map is the score.
    """

    def fit(self, images: Tensor) -> None:
        """See the base class. There is nothing to do."""

    def score(self, images: Tensor) -> Answer:
        """See the base class. Maps and scores are grey values of the input."""
        sigma = images.shape[-1] / SIDES_PER_SIGMA
        maps = torch.from_numpy(gaussian_filter(images.mean(dim=1).numpy(), (0, sigma, sigma)))
        return Answer(maps.amax(dim=(1, 2)), maps)
