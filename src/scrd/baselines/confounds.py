"""A trivial baseline: plain numbers of the image, without any look at what it shows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scrd.audit.confounds import scalars
from scrd.baselines.method import Answer, Baseline, Budget

NAMES = (
    "mean brightness",
    "contrast",
    "sharpness",
    "near black",
    "border brightness",
    "border red minus blue",
)
"""The numbers of `scrd check` that a model input still has; file size, pixel size and colour
channels are gone by then."""

NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

SMALLEST_SPREAD = 1e-6
"""Spread of a number that is the same in all training normals, so that z stays finite."""


class Confounds(Baseline):
    """Largest absolute robust z-score over the plain numbers of `scrd check`.

    A method that does not beat it has not been shown to look at the disease. A number's z is its
    distance from the median of the training normals over 1.4826 times their median absolute
    deviation; where more than half of the normals share one value, that deviation is zero and
    the standard deviation takes its place. The numbers are those of the model's input (resized,
    windowed), not of the file. No map, no teacher, nothing on the device.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.register_buffer("centre", torch.zeros(len(NAMES)))
        self.register_buffer("spread", torch.ones(len(NAMES)))

    def fit(self, images: Tensor) -> None:
        """See the base class. Nothing is drawn."""
        values = plain_numbers(images)
        centre = np.median(values, axis=0)
        spread = NORMAL_MAD * np.median(np.abs(values - centre), axis=0)
        spread = np.where(spread > 0, spread, values.std(axis=0))
        self.centre = torch.from_numpy(centre)
        self.spread = torch.from_numpy(np.maximum(spread, SMALLEST_SPREAD).astype(np.float32))

    def score(self, images: Tensor) -> Answer:
        """See the base class. Scores are in standard deviations of normals; no maps."""
        z = (torch.from_numpy(plain_numbers(images)) - self.centre) / self.spread
        return Answer(z.abs().amax(dim=1), None)


def plain_numbers(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The numbers ``NAMES`` of (B, C, S, S) images in [0, 1]: (B, 6), float32."""
    rows = []
    for image in images.permute(0, 2, 3, 1).numpy():
        numbers = scalars(image[..., 0] if image.shape[-1] == 1 else image, file_size=0)
        rows.append([numbers[name] for name in NAMES])
    return np.array(rows, np.float32)
