"""The training loop: reproducible from a seed, resumable at any iteration."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from scrd.config import Config
from scrd.model import SCRD
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.system.allocator import reused_memory
from scrd.training.batches import batch_indices, generator_of, share_of
from scrd.training.checkpoint import load_checkpoint, save_checkpoint, trainable_parameters
from scrd.training.log import LogEntry, TrainingError
from scrd.training.sync_norm import JoinedBatchNorm2d, replace_norms
from scrd.training.teacher_features import cached_features, noisy_features

LOG_EVERY = 10
STATISTICS_IMAGES = 768
"""Training normals that give the statistics of features and distances, at the most."""


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of a step, from 0: constant, or half a cosine from the first to zero."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.iterations))


def spread(images: Tensor, at_most: int) -> Tensor:
    """``at_most`` of the (N, ...) images or all, evenly over their order."""
    step = max(1, math.ceil(len(images) / at_most))
    return images[::step]


def _fit_scaler(model: SCRD, images: Tensor, device: torch.device) -> None:
    with torch.no_grad():
        some = spread(images, STATISTICS_IMAGES)
        model.scaler.fit(model.teacher(batch.to(device)) for batch in torch.split(some, 32))


@reused_memory()
def train(
    model: SCRD,
    images: Tensor,
    config: Config,
    *,
    fabric: Fabric,
    checkpoint: Path | None = None,
    identity: str = "{}",
    on_log: Callable[[LogEntry], None] = lambda entry: None,
) -> list[LogEntry]:
    """Train bottleneck, student and scale head in place.

    The clean path runs teacher (or its cached features), bottleneck, student and scale head;
    the noisy path runs the teacher alone, without gradient, so BatchNorm only ever sees normal
    batches.

    Where Fabric has several processes, each takes its share of every batch. Statistics of a batch
    are those of all shares and gradients their mean, so that the result is, up to the order of
    sums, that of one process.

    Args:
        model: the network, on the CPU; left on Fabric's device in eval mode.
        images: (N, C, S, S), float32, in [0, 1], C = 1 or 3: the normal training images.
        config: settings.
        fabric: devices and precision, see :func:`scrd.system.devices.make_fabric`; launched.
        checkpoint: file that is written every ``config.checkpoint_every`` iterations, by the
            first process, and, if it is there, resumed from, by all.
        identity: JSON object that says what a checkpoint must agree on to be resumed.
        on_log: called every ten iterations in the first process.

    Returns:
        The log, one entry every ten iterations.

    Raises:
        TrainingError: fewer images than a batch needs, a loss that is not finite, a checkpoint
            that does not belong here, or a batch that the processes cannot share.
    """
    if len(images) < 2:
        raise TrainingError(f"training needs at least 2 readable normal images, got {len(images)}")
    objective = OBJECTIVES[config.objective]
    share = share_of(fabric, config.batch_size)
    torch.backends.cudnn.deterministic = True
    model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    cuda = fabric.device.type == "cuda"
    parallel = fabric.world_size > 1
    if parallel:
        replace_norms(model.bottleneck, nn.SyncBatchNorm if cuda else JoinedBatchNorm2d)
        replace_norms(model.student, nn.SyncBatchNorm if cuda else JoinedBatchNorm2d)
    optimizer = torch.optim.Adam(
        trainable_parameters(model).values(), lr=config.learning_rate, betas=config.betas
    )
    start = 0
    log: list[LogEntry] = []
    if checkpoint is not None and checkpoint.exists():
        start, log = load_checkpoint(checkpoint, model, optimizer, identity)
    # equal if none of them is off the mean
    if start != float(fabric.all_reduce(torch.tensor(float(start), device=fabric.device))):  # type: ignore[arg-type]
        raise TrainingError(
            f"{checkpoint}: only some processes see this checkpoint; "
            "give a folder that all machines share"
        )
    if objective.standardised:
        _fit_scaler(model, images, fabric.device)
    cache = cached_features(model, images, fabric.device, config.feature_cache_gib)
    wrapped, optimizer = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("reconstruct")
    model.train()

    def to_device(x: Tensor) -> Tensor:
        on_device = (x.pin_memory() if cuda else x).to(fabric.device, non_blocking=cuda)
        return on_device.contiguous(memory_format=torch.channels_last)

    def mean(x: Tensor) -> Tensor:
        return fabric.all_reduce(x.detach().float(), reduce_op="mean")  # type: ignore[return-value]

    clock, done = time.perf_counter(), 0
    for step in range(start, config.iterations):
        index = batch_indices(step, config.batch_size, len(images), config.seed)
        own = index[share]
        image = to_device(images[own]) if cache is None or objective.contrastive else None
        with torch.no_grad(), fabric.autocast():
            clean: Sequence[Tensor]
            noisy: Sequence[Tensor]
            if cache is not None:
                at = own.to(fabric.device)
                clean = [f[at].contiguous(memory_format=torch.channels_last) for f in cache]
            else:
                assert image is not None
                clean = model.encode(image)
            noisy, footprint = (), None
            if objective.contrastive:
                assert image is not None
                generator = generator_of(config.seed, 2, step)
                noisy, footprint = noisy_features(model, image, config, generator, share)
        with fabric.autocast():  # Fabric itself sees to it for `forward` alone
            student, scale_weights = wrapped.reconstruct(clean)
        # cosines of long vectors need fp32, whatever the precision of the network
        clean, student, noisy = ([f.float() for f in fs] for fs in (clean, student, noisy))
        features = StepFeatures(clean, student, noisy, scale_weights.float(), footprint)
        loss = objective.function(features).mean()
        if parallel:  # DDP wants a gradient of every parameter, if only zero
            loss = loss + 0 * scale_weights.sum()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()

        done += len(index)
        finished = step + 1
        logging = finished % LOG_EVERY == 0 or finished == config.iterations
        saving = checkpoint is not None and finished % config.checkpoint_every == 0
        if (logging or saving) and not np.isfinite(value := float(mean(loss))):
            raise TrainingError(
                f"the loss became {value} at iteration {finished}: lower the learning rate "
                "or check the intensity window of the data"
            )
        if logging:
            now = time.perf_counter()
            alpha = tuple(mean(scale_weights.mean(dim=0)).tolist())
            log.append(LogEntry(finished, value, alpha, done / (now - clock)))
            clock, done = now, 0
            if fabric.is_global_zero:
                on_log(log[-1])
        if saving and fabric.is_global_zero:
            assert checkpoint is not None
            save_checkpoint(checkpoint, model, optimizer, log, finished, identity)
    if parallel:
        replace_norms(model.bottleneck, nn.BatchNorm2d)
        replace_norms(model.student, nn.BatchNorm2d)
    model.eval()
    return log
