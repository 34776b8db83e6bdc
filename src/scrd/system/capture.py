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
    with capturing, torch.cuda.device(device):
        here = stream = torch.cuda.current_stream(device)
        # recorded where it will run: libraries keep one working memory a stream, which two graphs
        # that run at the same time must not share. The default stream cannot be recorded
        if here == torch.cuda.default_stream(device):
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(here)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                work()
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads may use the device meanwhile, if they do not wait for all of it
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as e:
            raise RuntimeError(str(_first(e))) from e
    replay: Callable[[], None] = graph.replay
    return replay


def _first(error: BaseException) -> BaseException:
    """What went wrong first: the end of a recording that failed only says that it did."""
    while error.__context__ is not None:
        error = error.__context__
    return error
