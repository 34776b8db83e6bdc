"""From the network's maps to one anomaly map to a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.model import SCRD, Outputs
from scrd.model.acquisition import acquisition

POOLINGS = ("areas", "excess", "mean", "top", "max")
"""The named ways from a map to a score, larger is more anomalous.

``areas``, ``mean``, ``top`` and ``max`` pool the one anomaly map; ``areas``, the default, is
:class:`scrd.model.areas.AreaScore`. ``excess`` pools distance maps one by one: Σ_k α_k r_k, where
z_k is the distance map in standard deviations of normals at that position and r_k the mean over
the image of max(0, z_k), read against what is expected of a normal image like it.
"""


class Inference(NamedTuple):
    """What the network says about a batch.

    Attributes:
        maps: anomaly maps, (B, S, S), float32. With a memory and a lesion head in standard
            deviations of normals; otherwise a distance in [0, 2], all scales alike unless the
            network weighs them image by image.
        scale_weights: α, (B, K), float32, rows sum to 1.
        statistics: the score under every pooling, each (B,), float32: ``areas``, those of
            :func:`map_statistics`, and, where distances alone make the map, ``excess``,
            ``excess_uniform`` (with equal scale weights) and ``excess_plain`` (and read against no
            expectation).
        excess: mean excess of each scale against what is expected of a normal image like it,
            (B, K), float32, in standard deviations of normals, see
            :class:`scrd.model.acquisition.ExpectedExcess`; None where ``statistics`` has none.
    """

    maps: Tensor
    scale_weights: Tensor
    statistics: dict[str, Tensor]
    excess: Tensor | None = None


def anomaly_map(maps: Sequence[Tensor], scale_weights: Tensor, size: int) -> Tensor:
    """Σ_k α_k · upsample(D_k), section 2.4 of the paper.

    Args:
        maps: D_k, (B, H_k, W_k), float.
        scale_weights: α, (B, K), float, rows sum to 1.
        size: side S of the model input in pixels.

    Returns:
        (B, S, S), float32; bilinear between positions.
    """
    total = scale_weights.new_zeros(len(scale_weights), 1, size, size, dtype=torch.float32)
    for k, one in enumerate(maps):
        upsampled = F.interpolate(
            one.unsqueeze(1), (size, size), mode="bilinear", align_corners=False
        )
        total += scale_weights[:, k].view(-1, 1, 1, 1) * upsampled
    return total.squeeze(1)


def agreement(maps: Sequence[Tensor], weights: Tensor, sharpness: float) -> Tensor:
    r"""The soft minimum of maps: :math:`-\frac{1}{s} \log \sum_k w_k e^{-s z_k}`.

    High only where all are. What one of them alone finds unusual is often not a lesion: a rare
    normal place that the memory lacks, or an edge that the lesion head takes for one.

    Args:
        maps: z_k, (B, H, W), float, in standard deviations of normals; K of one size.
        weights: w, (B, K), float, rows sum to 1.
        sharpness: s; 0 is the weighted mean.

    Returns:
        (B, H, W), float.
    """
    stacked = torch.stack(list(maps), dim=1)
    w = weights[:, :, None, None]
    if sharpness == 0:
        return (w * stacked).sum(dim=1)
    return -(torch.logsumexp(w.log() - sharpness * stacked, dim=1) / sharpness)


def scale_excess(model: SCRD, distances: Sequence[Tensor], content: Tensor) -> Tensor:
    """Mean over the content of the upsampled excess of each scale, max(0, z_k).

    Args:
        model: whose ``normals`` are fitted.
        distances: D_k, (B, H_k, W_k), float.
        content: (B, S, S), bool.

    Returns:
        (B, K), float32, in standard deviations of normals.
    """
    area = content.flatten(1).sum(dim=1)
    means = []
    for z in model.normals(distances):
        upsampled = F.interpolate(
            z.clamp_min(0)[:, None], content.shape[-2:], mode="bilinear", align_corners=False
        )
        means.append((upsampled.squeeze(1) * content).flatten(1).sum(dim=1) / area)
    return torch.stack(means, dim=1)


@torch.inference_mode()
def measured(model: SCRD, images: Tensor) -> Outputs:
    """Run the network on prepared images.

    Args:
        model: in eval mode, on any device.
        images: (B, C, S, S), float32, C = 1 or 3, on the CPU.

    Returns:
        Its maps and scale weights, on its device.
    """
    device = next(model.parameters()).device
    image = images.to(device).contiguous(memory_format=torch.channels_last)
    found: Outputs = model(image)
    return found


class Scores(nn.Module):
    """From prepared images to maps and scores: the one way, which exports trace.

    Args:
        model: trained, with the statistics of normals.
    """

    def __init__(self, model: SCRD) -> None:
        super().__init__()
        self.model = model
        self._combined = model.objective.combined
        # constant weights of distances say which scales to trust for a score, not where to look
        constant = not self._combined and model.scale_head.constant
        self._alike_in_maps = constant or model.objective.inert

    def forward(self, images: Tensor, content: Tensor) -> Inference:
        """Score a batch.

        Args:
            images: (B, C, S, S), float32, C = 1 or 3, nominally in [0, 1], on the model's device.
            content: (B, S, S), bool, there too; False on letterbox padding.

        Returns:
            Everything on the model's device.
        """
        found, scale_weights = self.model(images)
        maps = self.combine(found, scale_weights, images.shape[-1])
        statistics = {
            "areas": self.model.areas(maps, content),
            **map_statistics(maps, content, self.model.constants.top_fraction),
        }
        if self._combined:
            return Inference(maps, scale_weights, statistics)
        plain = scale_excess(self.model, found, content)
        excess = self.model.expected(plain, acquisition(images, content))
        statistics |= {
            "excess": (scale_weights * excess).sum(dim=1),
            "excess_uniform": excess.mean(dim=1),
            "excess_plain": plain.mean(dim=1),
        }
        return Inference(maps, scale_weights, statistics, excess)

    def combine(self, found: Sequence[Tensor], scale_weights: Tensor, size: int) -> Tensor:
        """The anomaly map of the network's maps, smoothed, (B, size, size), float32."""
        smoothed: Tensor = self.model.smooth(self._combine(found, scale_weights, size))
        return smoothed

    def _combine(self, found: Sequence[Tensor], scale_weights: Tensor, size: int) -> Tensor:
        if self._combined:
            agreed = agreement(
                self.model.normals(found), scale_weights, self.model.constants.sharpness
            )
            return anomaly_map([agreed], torch.ones_like(scale_weights[:, :1]), size)
        alike = torch.full_like(scale_weights, 1 / scale_weights.shape[1])
        return anomaly_map(found, alike if self._alike_in_maps else scale_weights, size)


@torch.inference_mode()
def infer(model: SCRD, images: Tensor, content: Tensor) -> Inference:
    """Run :class:`Scores` on images that are elsewhere.

    Args:
        model: in eval mode, on any device.
        images: (B, C, S, S), float32, C = 1 or 3, on the CPU.
        content: (B, S, S), bool, on the CPU.

    Returns:
        Everything on the CPU.
    """
    device = next(model.parameters()).device
    image = images.to(device).contiguous(memory_format=torch.channels_last)
    found: Inference = Scores(model)(image, content.to(device))
    return Inference(
        found.maps.cpu(),
        found.scale_weights.cpu(),
        {name: values.cpu() for name, values in found.statistics.items()},
        found.excess.cpu() if found.excess is not None else None,
    )


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
    # as many whatever the content, so that a traced graph holds for all
    highest = ranked.topk(math.ceil(top_fraction * ranked.shape[1]), dim=1).values
    taken = torch.arange(highest.shape[1], device=maps.device) < count[:, None]
    top = torch.where(taken, highest, torch.zeros_like(highest)).sum(dim=1) / count
    return {"mean": inside.sum(dim=1) / area, "top": top, "max": highest[:, 0]}
