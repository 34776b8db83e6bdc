"""How far normal is a matter of the position: learnt from lesions put into normals."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from scrd.metrics.ranks import average_precision
from scrd.model.normals import NormalMaps

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""What is tried, see :meth:`scrd.model.normals.NormalMaps.fit`."""

COVERED = 0.5
"""Share of a position from which it belongs to a lesion. Those less covered do not count."""


def by_position(
    normals: Sequence[Tensor], changed: Sequence[Tensor], lesions: Tensor, level: Sequence[float]
) -> list[float]:
    """Weigh the statistics of the position against those of all positions, map by map.

    In a chest X-ray the shoulder is in one place, and a distance that is normal there is not in the
    lung; in slices of a brain at any height no place means anything. Which of the two a data set is
    shows in normals with synthetic lesions: that share is taken with which the map tells their
    positions best from the others, by average precision.

    Args:
        normals: maps of normal images, (N, H_k, W_k) each, float.
        changed: maps of normal images with lesions, (M, H_k, W_k) each.
        lesions: where these are, (M, 1, S, S), float, in [0, 1].
        level: see :class:`scrd.model.normals.NormalMaps`.

    Returns:
        One of ``SHARES`` for each map; the largest of equals, and 1 without a lesion to be seen.
    """
    return [
        _best(normal, with_some, lesions, taken)
        for normal, with_some, taken in zip(normals, changed, level, strict=True)
    ]


def _best(normal: Tensor, changed: Tensor, lesions: Tensor, level: float) -> float:
    covered = F.adaptive_avg_pool2d(lesions, changed.shape[-1]).squeeze(1)
    known = (covered == 0) | (covered >= COVERED)
    inside = (covered >= COVERED)[known].numpy()
    if not inside.any() or inside.all():
        return 1.0
    found = []
    for share in SHARES:
        statistics = NormalMaps([normal.shape[-1]], [level])
        statistics.fit([[normal]], [share])
        found.append((average_precision(statistics([changed])[0][known].numpy(), inside), share))
    return max(found)[1]
