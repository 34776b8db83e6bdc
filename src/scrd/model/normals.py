"""What distance is normal where: the statistics that a distance map is read against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from scrd.model.backbone import STRIDES

FLOOR = 0.3
"""Share of a scale's overall standard deviation that is added to each position's: where normals
happen to agree, as in a corner that is always black, a tiny difference must not count for much."""


class NormalDistances(nn.Module):
    """Mean and standard deviation of the distance maps of normals at every position.

    Args:
        image_size: side S of the model's input in pixels.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        for k, stride in enumerate(STRIDES):
            side = image_size // stride
            self.register_buffer(f"mean{k}", torch.zeros(side, side))
            self.register_buffer(f"std{k}", torch.ones(side, side))

    @torch.no_grad()
    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Take the statistics of normals.

        Args:
            batches: distance maps D_k of normal images, (B, H_k, W_k), float, in [0, 2].
        """
        scales = [torch.cat(parts).double() for parts in zip(*batches, strict=True)]
        for k, maps in enumerate(scales):
            self.get_buffer(f"mean{k}").copy_(maps.mean(dim=0))
            spread = maps.std(dim=0, correction=0) + FLOOR * maps.std(correction=0)
            self.get_buffer(f"std{k}").copy_(spread.clamp_min(1e-6))

    def excess(self, distances: Sequence[Tensor]) -> list[Tensor]:
        """How far distances exceed those of normals.

        Args:
            distances: D_k, (B, H_k, W_k), float.

        Returns:
            max(0, (D_k − mean_k) / (std_k + floor)), shaped like D_k, in standard deviations.
        """
        return [
            ((d - self.get_buffer(f"mean{k}")) / self.get_buffer(f"std{k}")).clamp_min(0)
            for k, d in enumerate(distances)
        ]
