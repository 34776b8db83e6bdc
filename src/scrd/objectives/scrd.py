"""The default objective: pull everywhere, contrast where the perturbation is, honest weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.objectives.distance import EPSILON, distance_map
from scrd.objectives.features import StepFeatures
from scrd.objectives.rd import rd

MARGIN = 0.5
"""m: how much nearer to u than to z the student must be, as a share of the distance u to z."""
TEMPERATURE = 0.2
"""τ: how sharply α prefers a scale that tells clean from noisy."""


def _coverage(footprint: Tensor, size: torch.Size) -> Tensor:
    """Share of each feature position that the perturbation covers, (B, H_k, W_k) in [0, 1]."""
    return F.adaptive_avg_pool2d(footprint.float(), (size[-2], size[-1])).squeeze(1)


def scrd(step: StepFeatures) -> Tensor:
    r"""Reverse distillation + local contrast + scale weights that cannot look away.

    With D the distance map, w_k the share of each position under the perturbation, and ⟨·⟩_w
    the mean over positions weighted by w_k:

    - pull:     Σ_k d(u_k, v_k), the `rd` objective, on the flattened maps;
    - contrast: Σ_k ⟨max(0, D(u_k, v_k) − D(z_k, v_k) + m D(u_k, z_k))⟩_w, a triplet margin
      under the patch, where u and z differ. The margin is a share of the distance between u and
      z, so v = u always fulfils it. Over the whole map, as in Eq. (2), u and z are nearly the
      same vector and their ratio hardly pulls;
    - scale:    Σ_k t_k log(t_k / α_k), the divergence of α from t = softmax(−r / τ), with r_k =
      ⟨D(u_k, v_k)⟩_w / (⟨D(u_k, v_k)⟩_w + ⟨D(z_k, v_k)⟩_w) in [0, 1] taken as a constant. Its
      minimum over α is E[t]: α follows how well a scale tells clean from noisy. No t_k is below
      exp(−1/τ) / K, the gradient α − t of the logits brings a one-hot α back, and no choice of
      α spares the student any work.

    Returns:
        (B,), float.
    """
    assert step.footprint is not None, "the scrd objective needs the perturbation's footprint"
    contrast = torch.zeros_like(step.scale_weights[:, 0])
    shares = []
    for u, v, z in zip(step.clean, step.student, step.noisy, strict=True):
        to_clean, to_noisy, apart = distance_map(u, v), distance_map(z, v), distance_map(u, z)
        w = _coverage(step.footprint, u.shape)
        area = w.sum(dim=(1, 2)) + EPSILON
        hinge = F.relu(to_clean - to_noisy + MARGIN * apart)
        contrast = contrast + (w * hinge).sum(dim=(1, 2)) / area
        near = (w * to_clean).sum(dim=(1, 2)) / area
        far = (w * to_noisy).sum(dim=(1, 2)) / area
        shares.append((near / (near + far + EPSILON)).detach())
    target = torch.log_softmax(-torch.stack(shares, dim=1) / TEMPERATURE, dim=1)
    tiny = torch.finfo(step.scale_weights.dtype).tiny
    log_alpha = step.scale_weights.clamp_min(tiny).log()
    scale = (target.exp() * (target - log_alpha)).sum(dim=1)
    return rd(step) + contrast + scale
