"""Pull everywhere, and a margin from the noisy features where the perturbation is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.objectives.distance import EPSILON, distance_map
from scrd.objectives.features import StepFeatures
from scrd.objectives.rd import rd

MARGIN = 0.5
"""m: how much nearer to u than to z the student must be, as a share of the distance u to z."""


def _coverage(footprint: Tensor, size: torch.Size) -> Tensor:
    """Share of each feature position that the perturbation covers, (B, H_k, W_k) in [0, 1]."""
    return F.adaptive_avg_pool2d(footprint.float(), (size[-2], size[-1])).squeeze(1)


def margin(step: StepFeatures) -> Tensor:
    r"""Σ_k d(u_k, v_k) + Σ_k ⟨max(0, D(u_k, v_k) − D(z_k, v_k) + m D(u_k, z_k))⟩_w.

    D is the distance map, w_k the share of each position under the perturbation, ⟨·⟩_w the mean
    over positions weighted by w_k. A triplet margin under the patch, where u and z differ: over
    the whole map, as in Eq. (2), they are nearly the same vector and their ratio hardly pulls.
    The margin is a share of the distance between u and z, so v = u always fulfils it.

    An ablation: it stabilises the contrast of Eq. (2), and does not improve on the pull alone,
    see ``docs/method.md``.

    Returns:
        (B,), float.
    """
    assert step.footprint is not None, "the margin objective needs the perturbation's footprint"
    contrast = torch.zeros_like(step.scale_weights[:, 0])
    for u, v, z in zip(step.clean, step.student, step.noisy, strict=True):
        to_clean, to_noisy, apart = distance_map(u, v), distance_map(z, v), distance_map(u, z)
        w = _coverage(step.footprint, u.shape)
        hinge = F.relu(to_clean - to_noisy + MARGIN * apart)
        contrast = contrast + (w * hinge).sum(dim=(1, 2)) / (w.sum(dim=(1, 2)) + EPSILON)
    return rd(step) + contrast
