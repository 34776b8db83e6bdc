"""Work that is launched once for all on a GPU: CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

_WARM_UP = 3
"""Runs before a capture, in which libraries choose their algorithms and allocate."""

capturing = threading.RLock()
"""Held while something is recorded: nobody may wait for a whole device meanwhile."""


def captured(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record work that is done again and again on the same tensors.

    On a GPU a small network is bound by the launches of its hundreds of kernels; a graph is one
    launch. Elsewhere the work is done as it is, so that the same code runs, and is tested, on a
    CPU.

    Args:
        work: reads and writes tensors that stay where they are, and does the same whatever their
            values: no copy from or to the host, no choice by a value. It is run some times before
            it is recorded, so that whoever cannot have that must restore what it changes.
        device: where it runs.

    Returns:
        Does the work on the current stream.

    Raises:
        RuntimeError: it cannot be recorded. The device is usable afterwards.
    """
    if device.type != "cuda":
        return work
    with capturing:
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                work()
        torch.cuda.current_stream(device).wait_stream(aside)
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        # other threads may use the device meanwhile, if they do not wait for all of it
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            work()
    replay: Callable[[], None] = graph.replay
    return replay
