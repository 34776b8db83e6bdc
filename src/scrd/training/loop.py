"""The training loop: reproducible from a seed, resumable at any iteration."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from scrd.config import Config
from scrd.model import SCRD
from scrd.system.allocator import reused_memory
from scrd.training.checkpoint import save_checkpoint
from scrd.training.interruption import finishing_the_step
from scrd.training.log import LogEntry, TrainingError, TrainingInterrupted
from scrd.training.setup import set_up
from scrd.training.step import Steps

LOG_EVERY = 10


@reused_memory()
def train(
    model: SCRD,
    images: Tensor,
    config: Config,
    *,
    fabric: Fabric,
    checkpoint: Path | None = None,
    identity: str = "{}",
    on_start: Callable[[list[LogEntry]], None] = lambda log: None,
    on_step: Callable[[int], None] = lambda done: None,
    on_log: Callable[[LogEntry], None] = lambda entry: None,
) -> list[LogEntry]:
    """Train bottleneck, student and scale head in place.

    Where Fabric has several processes, each takes its share of every batch. Statistics of a batch
    are those of all shares and gradients their mean, so that the result is, up to the order of
    sums, that of one process.

    Args:
        model: the network, on the CPU; left on Fabric's device in eval mode.
        images: (N, C, S, S), float32, in [0, 1], C = 1 or 3: the normal training images.
        config: settings.
        fabric: devices and precision, see :func:`scrd.system.devices.make_fabric`; launched.
        checkpoint: file that is written every ``config.checkpoint_every`` iterations, at the end
            and at an interruption, by the first process, and, if it is there, resumed from, by
            all.
        identity: JSON object that says what a checkpoint must agree on to be resumed.
        on_start: called with the log of the run that is resumed, empty in a new one.
        on_step: called with the number of iterations done, before the first and after each.
        on_log: called every ten iterations in the first process.

    Returns:
        The log, one entry every ten iterations.

    Raises:
        TrainingError: fewer images than a batch needs, a loss that is not finite, a checkpoint
            that does not belong here, or a batch that the processes cannot share.
        TrainingInterrupted: by Ctrl-C or SIGTERM, after the step in hand was saved.
    """
    if model.objective.function is None:
        model.to(fabric.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return []
    run = set_up(model, images, config, fabric, checkpoint, identity)
    steps = Steps(run)
    log = run.log
    on_start(log)
    on_step(run.start)
    clock, logged = time.perf_counter(), run.start
    with finishing_the_step(checkpoint is not None and fabric.world_size == 1) as stop:
        for number, loss, scale_weights in steps:
            done = number + 1
            last = done == config.iterations
            stopping = stop.is_set()
            logging = done % LOG_EVERY == 0 or last
            due = done % config.checkpoint_every == 0 or last or stopping
            saving = checkpoint is not None and due
            if (logging or saving) and not math.isfinite(value := float(run.mean(loss))):
                raise TrainingError(
                    f"the loss became {value} at iteration {done}: lower the learning rate "
                    "or check the intensity window of the data"
                )
            on_step(done)
            if logging:
                speed = (done - logged) * config.batch_size / (time.perf_counter() - clock)
                followed = run.mean(scale_weights.mean(dim=0)).tolist()
                alpha = tuple(followed) if run.objective.student else ()
                log.append(LogEntry(done, value, alpha, speed))
                clock, logged = time.perf_counter(), done
                if fabric.is_global_zero:
                    on_log(log[-1])
            if saving and checkpoint is not None and fabric.is_global_zero:
                save_checkpoint(checkpoint, model, run.optimizer, log, done, identity)
            if stopping and not last:
                raise TrainingInterrupted(done, config.iterations)
    run.finish()
    return log
