"""One score for small and large disease: the most unusual of several area means."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARES = (1.0, 0.25, 0.1, 0.03, 0.01, 0.001)
"""Parts of an image's area, each the highest of the map: from disease everywhere to a spot."""

CELL = 8
"""Side of the squares of pixels that are ranked, the stride of the map."""


class AreaScore(nn.Module):
    r"""The largest of :math:`(m_q - \mu_q) / \sigma_q`, q in ``SHARES``.

    m_q is the mean of the map over that share q of the image in which it is highest; μ_q and σ_q
    are its mean and standard deviation over normals. A mean over the whole image misses a spot, and
    a maximum misses what is a little wrong everywhere; in standard deviations of normals they can
    be compared, and nobody has to say how large lesions are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(SHARES)))
        self.register_buffer("std", torch.ones(len(SHARES)))

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take mean and standard deviation of each area mean over normals.

        Args:
            batches: maps and content of normal images, see :func:`area_means`.
        """
        parts = [area_means(maps, content).cpu() for maps, content in batches]
        if not parts:
            return
        found = torch.cat(parts).double()
        self.mean.copy_(found.mean(dim=0))
        self.std.copy_(found.std(dim=0, correction=0).clamp_min(1e-6))

    def forward(self, maps: Tensor, content: Tensor) -> Tensor:
        """Score maps.

        Args:
            maps: (B, S, S), float.
            content: (B, S, S), bool; False on letterbox padding, which never counts.

        Returns:
            (B,), float, in standard deviations of normals.
        """
        return ((area_means(maps, content) - self.mean) / self.std).amax(dim=1)


def area_means(maps: Tensor, content: Tensor) -> Tensor:
    """Mean of each map over its highest parts.

    Args:
        maps: (B, S, S), float, S a multiple of 8.
        content: (B, S, S), bool; every image needs at least one True.

    Returns:
        (B, len(SHARES)), float: over at least one square of 8 x 8 pixels. A square counts as one if
        any of it is content, with the mean of its content.
    """
    inside = content.to(maps.dtype)
    share = F.avg_pool2d(inside[:, None], CELL).flatten(1)
    values = F.avg_pool2d((maps * inside)[:, None], CELL).flatten(1)
    return highest_means(values / share.clamp_min(1e-6), share > 0)


def highest_means(values: Tensor, counts: Tensor) -> Tensor:
    """Mean over the highest parts.

    Args:
        values: (B, N), float.
        counts: (B, N), bool, those that count; at least one a row.

    Returns:
        (B, len(SHARES)), float: over at least one value.
    """
    lowest = torch.full_like(values, -torch.inf)
    ranked = torch.where(counts, values, lowest).topk(values.shape[1], dim=1).values
    sums = torch.where(ranked.isinf(), torch.zeros_like(ranked), ranked).cumsum(dim=1)
    # numbers, not a tensor, which a captured graph could not fetch from the host
    count = counts.sum(dim=1)
    many = torch.stack([(count * share).long() for share in SHARES], dim=1).clamp_min(1)
    return sums.gather(1, many - 1) / many
