"""What is normal where: the statistics that every map is read against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

FLOOR = 0.3
"""Share of a map's overall standard deviation that is added to each position's: where normals
happen to agree, as in a corner that is always black, a tiny difference must not count for much."""


class NormalMaps(nn.Module):
    """Mean and standard deviation of several maps of normals at every position.

    Args:
        sides: of each map, in positions.
        level: how much of the image's own mean is taken from each map first, from 0 to 1: the share
            of it that tells how the image was made rather than what is wrong in it.
    """

    def __init__(self, sides: Sequence[int], level: Sequence[float]) -> None:
        super().__init__()
        self.level = tuple(level)
        for k, side in enumerate(sides):
            self.register_buffer(f"mean{k}", torch.zeros(side, side))
            self.register_buffer(f"std{k}", torch.ones(side, side))

    @torch.no_grad()
    def fit(self, batches: Iterable[Sequence[Tensor]], by_position: Sequence[float]) -> None:
        """Take the statistics of normals.

        Args:
            batches: the maps of normal images, (B, H_k, W_k) each, float.
            by_position: how much each map's statistics are those of the position, from 1 down to 0,
                where they are those of all positions together. Where anatomy lies in the same place
                in every image, as in a chest X-ray, the position's own say more; where it does not,
                they are blurred anatomy.
        """
        kinds = [torch.cat(parts).double() for parts in zip(*batches, strict=True)]
        kinds = self._levelled(kinds)
        for k, (maps, own) in enumerate(zip(kinds, by_position, strict=True)):
            overall = maps.std(correction=0)
            mean = own * maps.mean(dim=0) + (1 - own) * maps.mean()
            spread = maps.std(dim=0, correction=0) + FLOOR * overall
            spread = own * spread + (1 - own) * overall
            self.get_buffer(f"mean{k}").copy_(mean)
            self.get_buffer(f"std{k}").copy_(spread.clamp_min(1e-6))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Read maps against those of normals.

        Args:
            maps: (B, H_k, W_k) each, float.

        Returns:
            (m − mean_k) / std_k, shaped like ``maps``, in standard deviations of normals.
        """
        return [
            (m - self.get_buffer(f"mean{k}")) / self.get_buffer(f"std{k}")
            for k, m in enumerate(self._levelled(maps))
        ]

    def _levelled(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [
            m - share * m.mean(dim=(1, 2), keepdim=True) if share else m
            for m, share in zip(maps, self.level, strict=True)
        ]
