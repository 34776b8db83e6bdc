"""From features to an anomaly map to a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.model import SCRD
from scrd.model.acquisition import acquisition
from scrd.model.constants import Constants
from scrd.objectives.distance import distance_map

POOLINGS = ("excess", "mean", "top", "max")
"""The named ways from distance maps to a score, larger is more anomalous.

``excess`` is Σ_k α_k r_k: with z_k the distance map in standard deviations of normals at that
position, r_k is the mean over the image of max(0, z_k), read against what is expected of a normal
image like it. ``mean``, ``top`` and ``max`` pool the plain anomaly map.
"""


class Inference(NamedTuple):
    """What the network says about a batch, on the CPU.

    Attributes:
        maps: anomaly maps, (B, S, S), float32, in [0, 2]; all scales count alike unless the
            network weighs them image by image.
        plain_excess: mean excess of each scale, (B, K), float32, not negative, in standard
            deviations of the distances of normals.
        excess: the same against what is expected of a normal image like it, (B, K), float32, in
            standard deviations of normals, see :class:`scrd.model.acquisition.ExpectedExcess`.
        scale_weights: α, (B, K), float32, rows sum to 1.
    """

    maps: Tensor
    plain_excess: Tensor
    excess: Tensor
    scale_weights: Tensor

    def statistics(self, content: Tensor, constants: Constants) -> dict[str, Tensor]:
        """All poolings of :func:`map_statistics` and of the excess, each (B,), float.

        Args:
            content: (B, S, S), bool; False on letterbox padding.
            constants: of the network.
        """
        return {
            "excess": (self.scale_weights * self.excess).sum(dim=1),
            "excess_uniform": self.excess.mean(dim=1),
            "excess_plain": self.plain_excess.mean(dim=1),
            **map_statistics(self.maps, content, constants.top_fraction),
        }


def anomaly_map(distances: Sequence[Tensor], scale_weights: Tensor, size: int) -> Tensor:
    """Σ_k α_k · upsample(D_k), section 2.4 of the paper.

    Args:
        distances: D_k, (B, H_k, W_k), float, in [0, 2].
        scale_weights: α, (B, K), float, rows sum to 1.
        size: side S of the model input in pixels.

    Returns:
        (B, S, S), float32, in [0, 2]; bilinear between positions.
    """
    total = scale_weights.new_zeros(len(scale_weights), 1, size, size, dtype=torch.float32)
    for k, distance in enumerate(distances):
        upsampled = F.interpolate(
            distance.unsqueeze(1), (size, size), mode="bilinear", align_corners=False
        )
        total += scale_weights[:, k].view(-1, 1, 1, 1) * upsampled
    return total.squeeze(1)


def scale_excess(model: SCRD, distances: Sequence[Tensor], content: Tensor) -> Tensor:
    """Mean over the content of the upsampled excess of each scale.

    Args:
        model: whose ``normals`` are fitted.
        distances: D_k, (B, H_k, W_k), float.
        content: (B, S, S), bool.

    Returns:
        (B, K), float32, in standard deviations of normals.
    """
    area = content.flatten(1).sum(dim=1)
    means = []
    for excess in model.normals.excess(distances):
        upsampled = F.interpolate(
            excess[:, None], content.shape[-2:], mode="bilinear", align_corners=False
        )
        means.append((upsampled.squeeze(1) * content).flatten(1).sum(dim=1) / area)
    return torch.stack(means, dim=1)


@torch.inference_mode()
def distances(model: SCRD, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run the network on prepared images.

    Args:
        model: in eval mode, on any device.
        images: (B, C, S, S), float32, C = 1 or 3, on the CPU.

    Returns:
        Distance maps D_k, (B, H_k, W_k), float32, in [0, 2], and α (B, K), float32, both on the
        model's device.
    """
    device = next(model.parameters()).device
    image = images.to(device).contiguous(memory_format=torch.channels_last)
    clean, student, scale_weights = model(image)
    found = [distance_map(u.float(), v.float()) for u, v in zip(clean, student, strict=True)]
    return found, scale_weights.float()


@torch.inference_mode()
def infer(model: SCRD, images: Tensor, content: Tensor) -> Inference:
    """Run the network and put its distance maps together.

    Args:
        model: in eval mode, on any device.
        images: (B, C, S, S), float32, C = 1 or 3, on the CPU.
        content: (B, S, S), bool, on the CPU; False on letterbox padding.
    """
    found, scale_weights = distances(model, images)
    # constant weights say which scales to trust for a score, not where to look
    alike = torch.full_like(scale_weights, 1 / scale_weights.shape[1])
    shown = alike if model.scale_head.constant else scale_weights
    maps = anomaly_map(found, shown, images.shape[-1])
    plain = scale_excess(model, found, content.to(maps.device))
    excess = model.expected(plain.cpu(), acquisition(images, content))
    return Inference(maps.cpu(), plain.cpu(), excess, scale_weights.cpu())


def map_statistics(maps: Tensor, content: Tensor, top_fraction: float) -> dict[str, Tensor]:
    """Pool maps in the three elementary ways.

    Args:
        maps: (B, S, S), float.
        content: (B, S, S), bool; False on letterbox padding, which never counts. Every image
            needs at least one True.
        top_fraction: share of the content that ``top`` takes, in (0, 1].

    Returns:
        ``mean`` of the content; ``top``, the mean of its highest part (at least one pixel);
        ``max``. Each (B,), float.
    """
    area = content.flatten(1).sum(dim=1)
    inside = torch.where(content, maps, torch.zeros_like(maps)).flatten(1)
    ranked = torch.where(content, maps, torch.full_like(maps, -torch.inf)).flatten(1)
    count = (top_fraction * area).long().clamp_min(1)
    highest = ranked.topk(int(count.max()), dim=1).values
    taken = torch.arange(highest.shape[1], device=maps.device) < count[:, None]
    top = torch.where(taken, highest, torch.zeros_like(highest)).sum(dim=1) / count
    return {"mean": inside.sum(dim=1) / area, "top": top, "max": highest[:, 0]}
