"""Teacher features as the feature-space baselines take them: in batches, and as patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from scrd.baselines.method import Budget
from scrd.config import Config
from scrd.model.teacher import Teacher, build_teacher
from scrd.system.devices import room_for_features

BATCH = 32
"""Images that go through the teacher together where a method passes over the whole set once."""

KEPT = Config.feature_cache_gib
"""GiB, at most, of what was computed of the training images and is kept for later steps: as much as
`scrd` itself may keep."""

NEIGHBOURHOOD = 3
"""Side p, in positions, of the neighbourhood that a patch feature averages."""


def seeded_teacher(budget: Budget, trainable: bool = False) -> Teacher:
    """Build the teacher of a budget and leave the global random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(budget.seed)
        return build_teacher(budget.teacher, budget.weights, trainable)


def extract(teacher: Teacher, images: Tensor, device: str) -> tuple[Tensor, ...]:
    """Features of a batch.

    Args:
        teacher: on ``device``.
        images: (B, C, S, S), float32, in [0, 1], C = 1 or 3, on any device.
        device: where to compute.

    Returns:
        u_1, u_2, u_3, (B, C_k, S/s_k, S/s_k), s = 4, 8, 16, on ``device``, without gradient.
    """
    image = images.to(device).contiguous(memory_format=torch.channels_last)
    features: tuple[Tensor, ...] = teacher(image)
    return features


def extract_all(teacher: Teacher, images: Tensor, device: str) -> Iterator[tuple[Tensor, ...]]:
    """Yield :func:`extract` of (N, C, S, S) images in their order, ``BATCH`` images at a time."""
    for start in range(0, len(images), BATCH):
        yield extract(teacher, images[start : start + BATCH], device)


class OncePerImage:
    """What a training needs of each image in every step, computed when it is first asked for.

    That is what `scrd` does with its teacher's features; a rival shall not compute them again and
    again. They are kept where all images have room; elsewhere each step computes its own.

    Args:
        compute: from images (B, C, S, S), float32, on the CPU, to tensors (B, ...) on the device,
            each row of which depends on its own image alone.
        images: (N, C, S, S), the training images.
    """

    def __init__(self, compute: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> None:
        self._compute, self._images = compute, images
        self._kept: list[Tensor] | None = None
        first = compute(images[:1])
        room = room_for_features(first[0].device, KEPT)
        if sum(one.nbytes for one in first) * len(images) <= room:
            self._kept = [_empty_rows(one, len(images)) for one in first]
            self._known = torch.zeros(len(images), dtype=torch.bool)

    def __call__(self, index: Tensor) -> tuple[Tensor, ...]:
        """Of the images at ``index``, (B,), int64: (B, ...) each, on the device."""
        if self._kept is None:
            return self._compute(self._images[index])
        if len(new := index[~self._known[index]]):
            for kept, computed in zip(self._kept, self._compute(self._images[new]), strict=True):
                kept[new.to(kept.device)] = computed
            self._known[new] = True
        return tuple(kept[index.to(kept.device)] for kept in self._kept)


def _empty_rows(like: Tensor, count: int) -> Tensor:
    """Room for (count, ...), laid out as ``like``, or each step would turn it over."""
    last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        count,
        *like.shape[1:],
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )


def patch_features(features: tuple[Tensor, ...]) -> Tensor:
    """Describe every position at stride 8 by its neighbourhood on the two deeper scales.

    Each scale is averaged over 3 x 3 positions (those inside the map), the deeper one is then
    brought to the size of the other, and both are concatenated: PatchCore, section 3.1, which
    SimpleNet follows. The pooling of the channels to a fixed number is left out: it saves memory
    with wide teachers, and loses detail.

    Args:
        features: u_1, u_2, u_3 from :func:`extract`; u_1 stays unused.

    Returns:
        (B, P, C_2 + C_3), float32, P = (S/8)² positions, row by row.
    """
    middle, deep = (
        F.avg_pool2d(
            u.float(), NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False
        ).contiguous()
        for u in features[1:]
    )
    deep = F.interpolate(deep, middle.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([middle, deep], dim=1).flatten(2).mT.contiguous()


def draw_patches(
    teacher: Teacher,
    images: Tensor,
    device: str,
    count: int,
    generator: torch.Generator,
    describe: Callable[[tuple[Tensor, ...]], Tensor] = patch_features,
) -> Tensor:
    """Draw patches of a set of images without repetition, every patch alike; one pass.

    Args:
        teacher: on ``device``.
        images: (N, C, S, S), as for :func:`extract`.
        device: where to compute.
        count: how many; all there are where these are fewer.
        generator: of the draw, advanced by one permutation of all N P patches.
        describe: makes (B, P, C) patches of a batch's features; P is the same for all.

    Returns:
        (count, C), float32, on ``device``, in the order of images and positions.
    """
    positions = describe(extract(teacher, images[:1], device)).shape[1]
    wanted = torch.randperm(len(images) * positions, generator=generator)[:count].sort().values
    parts = []
    first = 0
    for features in extract_all(teacher, images, device):
        patches = describe(features).flatten(0, 1)
        here = wanted[(wanted >= first) & (wanted < first + len(patches))] - first
        parts.append(patches[here.to(patches.device)])
        first += len(patches)
    return torch.cat(parts)


def upsample(patch_scores: Tensor, size: int) -> Tensor:
    """Lay out scores of positions, (B, P) row by row, as maps (B, S, S), bilinear between them."""
    side = round(patch_scores.shape[1] ** 0.5)
    grid = patch_scores.float().view(-1, 1, side, side)
    return F.interpolate(grid, (size, size), mode="bilinear", align_corners=False).squeeze(1)
