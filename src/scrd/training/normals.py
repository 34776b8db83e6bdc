"""What normals teach a trained network: statistics and scale weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scrd.config import Config
from scrd.model import SCRD
from scrd.model.acquisition import acquisition
from scrd.model.scores import distances, infer, scale_excess
from scrd.objectives import OBJECTIVES
from scrd.synthesis.probes import PROBES
from scrd.system.progress import counting
from scrd.training.scale_weights import PROBED, scale_weights
from scrd.training.setup import STATISTICS_IMAGES, spread

_BATCH = 16


def learn_normals(
    model: SCRD, images: Tensor, content: Tensor, config: Config, *, progress: bool = False
) -> None:
    """Give a trained network what it must know of normals to score, from the training normals.

    That is the distance that is normal at each position, the excess that is normal for an image
    like it, and, where the objective wants it, the scale weights
    (:func:`scrd.training.scale_weights.scale_weights`).

    Args:
        model: trained, in eval mode; its ``normals``, ``expected`` and ``scale_head`` are set.
        images: (N, C, S, S), float32: the normals that trained it; some are used.
        content: (N, S, S), bool; False on letterbox padding.
        config: ``objective``, ``acquisition`` and ``seed`` are used.
        progress: tell on standard error how far the work is.
    """
    some, inside = spread(images, STATISTICS_IMAGES), spread(content, STATISTICS_IMAGES)
    weighed = OBJECTIVES[config.objective].weighed
    passes = len(some) + (1 + len(PROBES)) * len(spread(some, PROBED)) * weighed
    with counting("learning what is normal", passes, progress) as advance:
        done = 0

        def batches(probed: Tensor, area: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
            nonlocal done
            for batch in zip(torch.split(probed, _BATCH), torch.split(area, _BATCH), strict=True):
                yield batch
                done += len(batch[0])
                advance(done)

        found = [[d.cpu() for d in distances(model, x)[0]] for x, _ in batches(some, inside)]
        model.normals.fit(found)
        device = next(model.parameters()).device
        parts = zip(found, torch.split(inside, _BATCH), strict=True)
        plain = [
            scale_excess(model, [d.to(device) for d in maps], area.to(device)).cpu()
            for maps, area in parts
        ]
        covariates = acquisition(some, inside)
        grey = images.shape[1] == 1
        adjust = config.acquisition == "adjust" or config.acquisition == "auto" and grey
        model.expected.fit(torch.cat(plain), covariates, adjust)
        if not weighed:
            return

        def excess(probed: Tensor, area: Tensor) -> Tensor:
            return torch.cat([infer(model, *batch).excess for batch in batches(probed, area)])

        untouched = model.expected(torch.cat(plain), covariates)
        alpha = scale_weights(excess, some, inside, untouched, config.seed)
        model.scale_head.fix(alpha.to(device))
