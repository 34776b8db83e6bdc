"""A trivial baseline: one Gaussian over the teacher's globally averaged features."""

from __future__ import annotations

import torch
from torch import Tensor

from scrd.baselines.features import extract, extract_all, seeded_teacher
from scrd.baselines.method import Answer, Baseline, Budget


def ledoit_wolf(samples: Tensor) -> tuple[Tensor, float]:
    """Covariance, shrunk towards a multiple of the identity.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
    Journal of Multivariate Analysis 88 (2004), section 3: with S the sample covariance (divided
    by N), m its mean eigenvalue, d² = ‖S − m I‖² and b² = min(d², N⁻² Σ_n ‖x_n x_nᵀ − S‖²), the
    estimate is (b²/d²) m I + (1 − b²/d²) S.

    Args:
        samples: (N, D), float, any location.

    Returns:
        The estimate, (D, D), float64, and the intensity of the shrinkage b²/d², in [0, 1].
    """
    x = samples.double()
    x = x - x.mean(dim=0)
    count, dimension = x.shape
    sample = x.T @ x / count
    target = torch.eye(dimension, dtype=x.dtype) * sample.trace() / dimension
    d2 = (sample - target).square().sum()
    # Σ_n ‖x_n x_nᵀ − S‖² = Σ_n ‖x_n‖⁴ − N ‖S‖²
    fourth = x.square().sum(dim=1).square().mean()
    b2 = torch.minimum((fourth - sample.square().sum()) / count, d2)
    intensity = float(b2 / d2) if d2 > 0 else 0.0
    return intensity * target + (1 - intensity) * sample, intensity


class Mahalanobis(Baseline):
    """Global average of each teacher scale, concatenated; distance to the training normals.

    Not a published method but the simplest use of the teacher: what is left when the place of a
    feature is thrown away. The Gaussian has the Ledoit-Wolf covariance, so that it exists for
    fewer images than channels. Score: Mahalanobis distance, in standard deviations. No map.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.teacher = seeded_teacher(budget)
        dimension = sum(self.teacher.channels)
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("whitening", torch.eye(dimension))

    def fit(self, images: Tensor) -> None:
        """See the base class. One pass, nothing is drawn."""
        self.to(self.budget.device).eval()
        batches = extract_all(self.teacher, images, self.budget.device)
        features = torch.cat([_global_average(u).cpu() for u in batches])
        covariance, _ = ledoit_wolf(features)
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(len(factor), dtype=factor.dtype)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        self.mean = features.mean(dim=0).to(self.mean)
        self.whitening = inverse.to(self.whitening)

    @torch.no_grad()
    def score(self, images: Tensor) -> Answer:
        """See the base class. Scores are √((x − μ)ᵀ Σ⁻¹ (x − μ)); no maps."""
        features = _global_average(extract(self.teacher, images, self.budget.device))
        z = (features - self.mean) @ self.whitening.T
        return Answer(z.norm(dim=1).cpu(), None)


def _global_average(features: tuple[Tensor, ...]) -> Tensor:
    """Means over positions of all scales, (B, C_1 + C_2 + C_3)."""
    return torch.cat([u.float().mean(dim=(2, 3)) for u in features], dim=1)
