"""What normals teach a trained network: its memory, statistics and scale weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scrd.config import Config
from scrd.model import SCRD
from scrd.model.acquisition import acquisition
from scrd.model.scores import Scores, infer, measured, scale_excess
from scrd.synthesis.lesions import apply_lesions, sample_lesions
from scrd.synthesis.probes import PROBES
from scrd.system.progress import counting
from scrd.training.batches import generator_of
from scrd.training.by_position import by_position
from scrd.training.scale_weights import PROBED, scale_weights
from scrd.training.setup import STATISTICS_IMAGES, spread

REMEMBERED = 40_000
"""Positions of normal images, drawn at random, of which the memory's prototypes are made."""

_BATCH = 16

Batch = tuple[Tensor, Tensor]


def learn_normals(
    model: SCRD, images: Tensor, content: Tensor, config: Config, *, progress: bool = False
) -> None:
    """Give a trained network what it must know of normals to score, from the training normals.

    That is its memory, what is normal at each position and for the map of a whole image; and, for
    objectives whose distances alone make the map, the excess that is normal for an image like it,
    and scale weights (:func:`scrd.training.scale_weights.scale_weights`).

    Args:
        model: trained, in eval mode; its ``memory``, ``normals``, ``areas``, ``expected`` and
            ``scale_head`` are set.
        images: (N, C, S, S), float32: the normals that trained it; some are used.
        content: (N, S, S), bool; False on letterbox padding.
        config: ``acquisition`` and ``seed`` are used.
        progress: tell on standard error how far the work is.
    """
    objective = model.objective
    some, inside = spread(images, STATISTICS_IMAGES), spread(content, STATISTICS_IMAGES)
    passes = len(some) * (1 + objective.memory)
    passes += (1 + len(PROBES)) * len(spread(some, PROBED)) * objective.weighed
    device = next(model.parameters()).device
    with counting("learning what is normal", passes, progress) as advance:
        done = 0

        def batches(probed: Tensor, area: Tensor) -> Iterator[Batch]:
            nonlocal done
            for batch in zip(torch.split(probed, _BATCH), torch.split(area, _BATCH), strict=True):
                yield batch
                done += len(batch[0])
                advance(done)

        if objective.memory:
            _remember(model, (x for x, _ in batches(some, inside)), len(some), config.seed)
        found = [measured(model, x) for x, _ in batches(some, inside)]
        maps = [[m.cpu() for m in one.maps] for one in found]
        own = [1.0] * len(maps[0])
        if objective.combined:
            normal = [torch.cat(one) for one in zip(*maps, strict=True)]
            own = by_position(
                normal, *maps_with_lesions(model, images, config.seed), model.normals.level
            )
        model.normals.fit(maps, own)
        areas = [area.to(device) for area in torch.split(inside, _BATCH)]
        if not objective.combined:
            plain = [
                scale_excess(model, one.maps, area) for one, area in zip(found, areas, strict=True)
            ]
            covariates = acquisition(some, inside).to(device)
            grey = images.shape[1] == 1
            adjust = config.acquisition == "adjust" or config.acquisition == "auto" and grey
            model.expected.fit(torch.cat(plain), covariates, adjust)
            if objective.weighed:

                def excess(probed: Tensor, area: Tensor) -> Tensor:
                    return torch.cat([_excess(model, batch) for batch in batches(probed, area)])

                untouched = model.expected(torch.cat(plain), covariates).cpu()
                alpha = scale_weights(excess, some, inside, untouched, config.seed)
                model.scale_head.fix(alpha.to(device))
                fixed = model.scale_head.linear.bias.detach().softmax(dim=0)
                found = [
                    one._replace(scale_weights=fixed.expand_as(one.scale_weights)) for one in found
                ]
        scores = Scores(model)
        model.areas.fit(
            (scores.combine(*one, images.shape[-1]), area)
            for one, area in zip(found, areas, strict=True)
        )


def _excess(model: SCRD, batch: Batch) -> Tensor:
    found = infer(model, *batch).excess
    assert found is not None
    return found


def maps_with_lesions(model: SCRD, images: Tensor, seed: int) -> tuple[list[Tensor], Tensor]:
    """Maps of some normals with lesions, and where these are."""
    some = spread(images, PROBED)
    changed, where = apply_lesions(some, sample_lesions(len(some), generator_of(seed, 4, 0)))
    parts = [measured(model, batch).maps for batch in torch.split(changed, _BATCH)]
    return [torch.cat(one).cpu() for one in zip(*parts, strict=True)], where


def _remember(model: SCRD, images: Iterator[Tensor], count: int, seed: int) -> None:
    """Fill the memory with normal positions."""
    device = next(model.parameters()).device
    generator = generator_of(seed, 3, 0)
    kept = []
    with torch.inference_mode():
        for batch in images:
            image = batch.to(device).contiguous(memory_format=torch.channels_last)
            vectors = model.memory.describe(model.teacher(image)).permute(0, 2, 3, 1).flatten(0, 2)
            share = REMEMBERED * len(batch) / count
            many = min(len(vectors), max(1, round(share)))
            kept.append(
                vectors[torch.randperm(len(vectors), generator=generator)[:many].to(device)]
            )
        model.memory.fit(torch.cat(kept), generator)
