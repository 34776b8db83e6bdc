"""The excess that is normal for an image as bright, contrasty and sharp as this one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.model.constants import Constants

COVARIATES = ("brightness", "contrast", "sharpness")


def acquisition(images: Tensor, content: Tensor) -> Tensor:
    """Plain numbers of prepared images.

    Args:
        images: (B, C, S, S), float32, C = 1 or 3.
        content: (B, S, S), bool; False on letterbox padding, which does not count.

    Returns:
        (B, 3), float32: mean, standard deviation, and the logarithm of the mean square of the
        4-neighbour Laplacian, all of the mean over the channels.
    """
    grey = images.float().mean(dim=1)
    inside = content.float()
    area = inside.sum(dim=(1, 2))
    mean = (grey * inside).sum(dim=(1, 2)) / area
    centred = (grey - mean[:, None, None]) * inside
    std = (centred.square().sum(dim=(1, 2)) / area).sqrt()
    inner = grey[:, 1:-1, 1:-1]
    sides = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    laplacian = sides - 4 * inner
    # only where all five pixels are content
    whole = 1 - F.max_pool2d(1 - inside[:, None], 3, stride=1).squeeze(1)
    sharpness = (laplacian.square() * whole).sum(dim=(1, 2)) / whole.sum(dim=(1, 2)).clamp_min(1)
    return torch.stack([mean, std, (sharpness + 1e-8).log()], dim=1)


class ExpectedExcess(nn.Module):
    """Reads the excess of each scale against what is expected of a normal image.

    A linear regression of the log excess on the covariates over normals; without covariates, its
    mean. What is left is divided by its standard deviation over normals.

    Args:
        scales: K.
        constants: ``offset`` and ``farthest`` are used.
    """

    center: Tensor
    spread: Tensor
    coefficients: Tensor
    residual: Tensor

    def __init__(self, scales: int, constants: Constants) -> None:
        super().__init__()
        self.constants = constants
        count = len(COVARIATES)
        self.register_buffer("center", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        self.register_buffer("coefficients", torch.zeros(1 + count, scales))
        self.register_buffer("residual", torch.ones(scales))

    def _design(self, covariates: Tensor) -> Tensor:
        """(B, 4), float32: one, and the covariates in units of their spread, bounded."""
        units = (covariates - self.center) / self.spread
        units = units.clamp(-self.constants.farthest, self.constants.farthest)
        return torch.cat([torch.ones_like(units[:, :1]), units], dim=1)

    @torch.no_grad()
    def fit(self, excess: Tensor, covariates: Tensor, adjust: bool) -> None:
        """Learn from normals.

        Args:
            excess: (N, K), float, not negative, in standard deviations of normals.
            covariates: (N, 3), float, from :func:`acquisition`, on the model's device.
            adjust: whether the covariates count.
        """
        self.center.copy_(covariates.mean(dim=0))
        self.spread.copy_(covariates.std(dim=0, correction=0).clamp_min(1e-6))
        logs = (excess + self.constants.offset).cpu().double().log()
        design = self._design(covariates).cpu().double()
        if not adjust:
            design[:, 1:] = 0
        # the small ridge keeps this solvable where a covariate never varies
        gram = design.T @ design + 1e-3 * len(design) * torch.eye(design.shape[1]).to(design)
        gram[0, 0] -= 1e-3 * len(design)
        solution = torch.linalg.solve(gram, design.T @ logs)
        left = logs - design @ solution
        self.coefficients.copy_(solution)
        self.residual.copy_(left.std(dim=0, correction=0).clamp_min(1e-6))

    def forward(self, excess: Tensor, covariates: Tensor) -> Tensor:
        """Standardise (B, K) excess, given (B, 3) covariates; in standard deviations of normals."""
        expected = self._design(covariates) @ self.coefficients
        logs = (excess + self.constants.offset).log()
        return (logs - expected) / self.residual
