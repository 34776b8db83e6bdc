"""From features to an anomaly map to a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.model import SCRD
from scrd.objectives.distance import distance_map

TOP_FRACTION = 0.02
"""Share of the pixels that ``top`` pooling averages."""

POOLINGS = ("mean", "top", "max", "fused")
"""The named ways from a map to a score; ``fused`` needs statistics of normals."""

PoolStatistics = Mapping[str, tuple[float, float]]
"""For ``mean`` and ``top``: mean and standard deviation of the log statistic on normals."""


def anomaly_map(
    clean: Sequence[Tensor], student: Sequence[Tensor], scale_weights: Tensor, size: int
) -> Tensor:
    """Σ_k α_k · upsample(1 − cos(u_k, v_k)), section 2.4 of the paper.

    Args:
        clean: teacher features u_k, (B, C_k, H_k, W_k), float.
        student: student features v_k, shaped like ``clean``.
        scale_weights: α, (B, K), float, rows sum to 1.
        size: side S of the model input in pixels.

    Returns:
        (B, S, S), float32, in [0, 2]; bilinear between positions.
    """
    total = scale_weights.new_zeros(len(scale_weights), 1, size, size, dtype=torch.float32)
    for k, (u, v) in enumerate(zip(clean, student, strict=True)):
        distance = distance_map(u.float(), v.float()).unsqueeze(1)
        upsampled = F.interpolate(distance, (size, size), mode="bilinear", align_corners=False)
        total += scale_weights[:, k].view(-1, 1, 1, 1) * upsampled
    return total.squeeze(1)


@torch.inference_mode()
def infer(model: SCRD, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run the network on prepared images.

    Args:
        model: in eval mode, on any device.
        images: (B, C, S, S), float32, C = 1 or 3, on the CPU.

    Returns:
        Anomaly maps (B, S, S), float32, in [0, 2], and α (B, K), float32, on the CPU.
    """
    device = next(model.parameters()).device
    image = images.to(device).contiguous(memory_format=torch.channels_last)
    clean, student, scale_weights = model(image)
    maps = anomaly_map(clean, student, scale_weights, images.shape[-1])
    return maps.cpu(), scale_weights.float().cpu()


def map_statistics(maps: Tensor, content: Tensor) -> dict[str, Tensor]:
    """Pool maps in the three elementary ways.

    Args:
        maps: (B, S, S), float.
        content: (B, S, S), bool; False on letterbox padding, which never counts. Every image
            needs at least one True.

    Returns:
        ``mean`` of the content; ``top``, the mean of its highest 2 % (at least one pixel);
        ``max``. Each (B,), float.
    """
    area = content.flatten(1).sum(dim=1)
    inside = torch.where(content, maps, torch.zeros_like(maps)).flatten(1)
    ranked = torch.where(content, maps, torch.full_like(maps, -torch.inf)).flatten(1)
    count = (TOP_FRACTION * area).long().clamp_min(1)
    highest = ranked.topk(int(count.max()), dim=1).values
    taken = torch.arange(highest.shape[1], device=maps.device) < count[:, None]
    top = torch.where(taken, highest, torch.zeros_like(highest)).sum(dim=1) / count
    return {"mean": inside.sum(dim=1) / area, "top": top, "max": highest[:, 0]}


def pool(
    statistics: Mapping[str, Tensor], pooling: str, normals: PoolStatistics | None = None
) -> Tensor:
    """Turn map statistics into scores.

    Args:
        statistics: from :func:`map_statistics`, each (B,), float, positive.
        pooling: ``mean``, ``top`` or ``max`` take that statistic; ``fused`` takes the larger of
            the standardised logarithms of mean and top, so that an image is conspicuous either
            as a whole or at a spot.
        normals: for ``fused``, from :func:`log_statistics` on held-out normals.

    Returns:
        ``score``, (B,), float; larger is more anomalous. A distance in [0, 2], for ``fused`` in
        standard deviations of normals.

    Raises:
        ValueError: unknown pooling, or ``fused`` without ``normals``.
    """
    if pooling in statistics:
        return statistics[pooling]
    if pooling != "fused":
        raise ValueError(f"unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
    if normals is None:
        raise ValueError("fused pooling needs the statistics of normals")
    z = [
        (statistics[name].clamp_min(1e-12).log() - mean) / std
        for name, (mean, std) in normals.items()
    ]
    return torch.stack(z).amax(dim=0)


def log_statistics(statistics: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of log mean and log top over normals, for ``fused``.

    The deviation is at least 0.02 (a spread of 2 %), so that a handful of alike normals does not
    make one of the two count without bound.
    """
    logs = {name: statistics[name].double().clamp_min(1e-12).log() for name in ("mean", "top")}
    return {
        name: (float(x.mean()), max(float(x.std(correction=0)), 0.02)) for name, x in logs.items()
    }
