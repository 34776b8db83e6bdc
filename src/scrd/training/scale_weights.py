"""Scale weights from contrast: normals, lesions made of them, and harmless changes of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from scrd.data.sample import even_places
from scrd.synthesis.probes import PROBES

Floats = NDArray[np.float64]

PROBED = 128
"""Training normals that are probed, at the most."""
RIDGE = 3.0
"""Added to the variances, in units of those of normals: pulls α towards the plain response."""
HARM = 2.0
"""How much the spread under harmless changes counts beside the spread of normals."""


def scale_weights(
    excess: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    content: Tensor,
    normals: Tensor,
    seed: int,
) -> Tensor:
    r"""Weigh the scales by how well they tell lesions from normals and from harmless changes.

    With e the excess of the K scales, Σ its covariance over normals plus the second moments of
    its change under harmless probes (blur, sharpening, noise, tone), and δ its mean change under
    lesion probes, each lesion normed to the same mean over the scales:

        α ∝ argmin_{w ≥ 0} (w − w*)ᵀ (Σ + ridge) (w − w*),  w* = (Σ + ridge)⁻¹ δ

    Fisher's linear discriminant with weights that may not be negative, all in units of the
    normals' standard deviations. No label and no test image is involved.

    Args:
        excess: from images (B, C, S, S) and content (B, S, S) to (B, K), the excess of each scale.
        images: (N, C, S, S), float32, in [0, 1]: normals, of which at most ``PROBED`` are used.
        content: (N, S, S), bool; False on letterbox padding.
        normals: (M, K), float: excess of normals.
        seed: of the probes.

    Returns:
        α, (K,), float32, sum 1, none negative; uniform where no lesion shows on any scale.
    """
    places = torch.from_numpy(even_places(len(images), PROBED))
    # clamped as probes do, which must not be told by the clamping alone
    some, inside = images[places].clamp(0, 1), content[places]
    untouched = excess(some, inside).double().numpy()
    changes: dict[str, list[Floats]] = {"lesion": [], "harmless": []}
    for probe in PROBES.values():
        generator = torch.Generator().manual_seed(seed)
        changed = probe(some.expand(-1, 3, -1, -1), generator)
        changes[probe.kind].append(excess(changed, inside).double().numpy() - untouched)
    return discriminant(normals.double().numpy(), changes["lesion"], changes["harmless"])


def discriminant(normals: Floats, lesions: list[Floats], harmless: list[Floats]) -> Tensor:
    """The arithmetic of :func:`scale_weights`.

    Args:
        normals: (M, K) excess of normals.
        lesions: one (N, K) change of the excess for each lesion probe.
        harmless: likewise for each harmless probe.

    Returns:
        See :func:`scale_weights`.
    """
    unit = np.maximum(normals.std(axis=0), 1e-9)
    covariance = np.cov(normals / unit, rowvar=False)
    for change in harmless:
        scaled = change / unit
        covariance = covariance + HARM / len(harmless) * scaled.T @ scaled / len(scaled)
    responses = [(change / unit).mean(axis=0) for change in lesions]
    delta = np.mean([r / max(r.mean(), 0.05) for r in responses], axis=0)
    scales = len(unit)
    root = np.linalg.cholesky(covariance + RIDGE * np.eye(scales))
    weights = nnls(root.T, np.linalg.solve(root, delta))[0] / unit
    if weights.sum() <= 0:
        weights = np.ones(scales)
    return torch.from_numpy(weights / weights.sum()).float()
