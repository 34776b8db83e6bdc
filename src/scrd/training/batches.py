"""Which images a step sees, drawn so that any step can be replayed alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from scrd.training.log import TrainingError


def generator_of(*key: int) -> torch.Generator:
    """A CPU generator that depends on the whole key, so that any step can be replayed alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator_of(seed, 1, epoch))


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> Tensor:
    """Images of one step: a walk through one fresh permutation of the set after another.

    Args:
        step: from 0.
        batch_size: B.
        count: N images in the set.
        seed: of the permutations.

    Returns:
        (B,), int64, in [0, N). Depends on the arguments alone, so a resumed run sees what the
        undisturbed one would have.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    out = torch.empty_like(positions)
    for epoch in sorted(set(epochs.tolist())):
        here = epochs == epoch
        out[here] = _permutation(count, seed, epoch)[positions[here] % count]
    return out


def share_of(fabric: Fabric, batch_size: int) -> slice:
    """The part of every batch that is this process's own.

    Raises:
        TrainingError: the processes cannot share a batch equally.
    """
    size, left = divmod(batch_size, fabric.world_size)
    if left:
        raise TrainingError(
            f"{fabric.world_size} processes cannot share a batch of {batch_size} equally: "
            "choose a batch size that is a multiple of their number"
        )
    return slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
