"""Layers of a teacher on one grid, in two groups, as Dinomaly takes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrd.model.teacher import Teacher
from scrd.model.vit import ResampledViT

LAYERS = 8
"""Layers of a vision transformer that are looked at, half of them in each group."""


class Encoded(NamedTuple):
    """What a teacher says of a batch, on a grid of h × w.

    Attributes:
        fused: (B, C, h, w), all layers in one.
        groups: the shallow layers, (B, C_1, h, w), and the deep ones, (B, C_2, h, w).
    """

    fused: Tensor
    groups: tuple[Tensor, Tensor]


def find_vit(teacher: nn.Module) -> ResampledViT | None:
    """The plain vision transformer inside ``teacher``, if it is one."""
    return next((m for m in teacher.modules() if isinstance(m, ResampledViT)), None)


def spread(depth: int) -> tuple[int, ...]:
    """Which of ``depth`` blocks, counted from 0: eight that end with the last, evenly spaced.

    >>> spread(9), spread(18)
    ((1, 2, 3, 4, 5, 6, 7, 8), (3, 5, 7, 9, 11, 13, 15, 17))
    """
    step = max(1, depth // (LAYERS + 1))
    return tuple(range(depth - 1, -1, -step)[:LAYERS][::-1])


def block_maps(teacher: nn.Module, vit: ResampledViT, image: Tensor) -> list[Tensor]:
    """Outputs of :func:`spread` blocks on the transformer's own grid, without class token.

    Args:
        teacher: is run.
        vit: inside ``teacher``.
        image: as for the teacher, (B, C, H, W).

    Returns:
        (B, D, H/g, W/g) each, shallow first; g is ``vit.grid``.
    """
    model: Any = vit.blocks.model
    chosen = [model.blocks[i] for i in spread(len(model.blocks))]
    found: list[Tensor] = []
    handles = [b.register_forward_hook(lambda _m, _a, out: found.append(out)) for b in chosen]
    try:
        teacher(image)
    finally:
        for handle in handles:
            handle.remove()
    size = [side // vit.grid for side in image.shape[-2:]]
    first = getattr(model, "num_prefix_tokens", 0)
    return [out.flatten(1, -2)[:, first:].mT.reshape(len(out), -1, *size) for out in found]


@torch.no_grad()
def encode(teacher: Teacher, image: Tensor) -> Encoded:
    """Run a teacher and bring its layers to one grid.

    Of a vision transformer eight layers are looked at, on its own grid: a group is the mean of
    four, and the mean of all eight is fused. Of any other teacher the maps u_1 and u_2 are
    averaged down to the grid of u_3, stride 16, and each is brought to unit length at every
    position; u_1 and u_2 side by side are one group, u_3 the other, all three are fused.

    Args:
        teacher: frozen.
        image: (B, 1 or 3, S, S), float32, on the teacher's device.
    """
    vit = find_vit(teacher)
    if vit is not None:
        maps = torch.stack(block_maps(teacher, vit, image))
        shallow, deep = maps.chunk(2)
        return Encoded(maps.mean(dim=0), (shallow.mean(dim=0), deep.mean(dim=0)))
    features = teacher(image)
    size = features[-1].shape[-2:]
    first, second, deep = (
        F.normalize(F.adaptive_avg_pool2d(u.float(), size), dim=1) for u in features
    )
    shallow = torch.cat([first, second], dim=1)
    return Encoded(torch.cat([shallow, deep], dim=1), (shallow, deep))
