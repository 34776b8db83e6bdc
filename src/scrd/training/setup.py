"""What the steps of a training run on: network, optimiser, images and features on their devices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from scrd.config import Config
from scrd.data.sample import even_places
from scrd.model import SCRD
from scrd.objectives import OBJECTIVES, Objective
from scrd.training.batches import share_of
from scrd.training.checkpoint import load_checkpoint, trainable_parameters
from scrd.training.log import LogEntry, TrainingError
from scrd.training.sync_norm import JoinedBatchNorm2d, replace_norms
from scrd.training.teacher_features import cached_features

STATISTICS_IMAGES = 768
"""Training normals that give the statistics of features and distances, at the most."""


@dataclass(frozen=True)
class Run:
    """A training that is ready for its steps.

    Attributes:
        model: the network, on the device.
        network: the same as Fabric runs it, which gathers gradients where it must.
        optimizer: Adam, of what training changes.
        images: (N, C, S, S), float32, in [0, 1], on the CPU.
        cache: teacher features of all images, on the device, or None where they took too much.
        on_device: the images once more, on a GPU that has room for them; None elsewhere.
        objective: what is trained for.
        config: settings.
        fabric: devices and precision.
        share: the part of every batch that is this process's own.
        start: iterations done by an earlier run.
        log: its log.
    """

    model: SCRD
    network: Any
    optimizer: Any
    images: Tensor
    cache: list[Tensor] | None
    on_device: Tensor | None
    objective: Objective
    config: Config
    fabric: Fabric
    share: slice
    start: int
    log: list[LogEntry]

    @property
    def capturable(self) -> bool:
        """Whether a step may be recorded: on a GPU, by one process, without a scaler of losses."""
        alone = self.fabric.world_size == 1
        scaled = str(self.config.precision).startswith("16")
        return self.fabric.device.type == "cuda" and alone and not scaled

    def set_rate(self, rate: float) -> None:
        """Of the next step."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # where a recorded step reads it
            else:
                group["lr"] = rate

    def mean(self, x: Tensor) -> Tensor:
        """Over the processes, each of which has its own share of a batch."""
        return self.fabric.all_reduce(x.detach().float(), reduce_op="mean")  # type: ignore[return-value]

    def finish(self) -> None:
        """Leave the model as one process would have."""
        if self.fabric.world_size > 1:
            for part in self.model.trained_parts():
                replace_norms(part, nn.BatchNorm2d)
        self.model.eval()


def set_up(
    model: SCRD,
    images: Tensor,
    config: Config,
    fabric: Fabric,
    checkpoint: Path | None,
    identity: str,
) -> Run:
    """Bring everything to its device; :func:`scrd.training.loop.train` describes the arguments."""
    if len(images) < 2:
        raise TrainingError(f"training needs at least 2 readable normal images, got {len(images)}")
    objective = OBJECTIVES[config.objective]
    if objective.by_batch and fabric.world_size > 1:
        raise TrainingError(
            f"the objective {config.objective} is a ratio of means over a whole batch, which "
            "several processes cannot share: train on one device"
        )
    share = share_of(fabric, config.batch_size)
    torch.backends.cudnn.deterministic = config.deterministic
    torch.backends.cudnn.benchmark = not config.deterministic
    model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fabric.world_size > 1:
        joined = nn.SyncBatchNorm if fabric.device.type == "cuda" else JoinedBatchNorm2d
        for part in model.trained_parts():
            replace_norms(part, joined)
    gpu, rate = fabric.device.type == "cuda", config.learning_rate
    optimizer = torch.optim.Adam(
        trainable_parameters(model).values(),
        lr=torch.tensor(rate, device=fabric.device) if gpu else rate,
        betas=config.betas,
        fused=gpu,
        capturable=gpu,
    )
    optimizer._warned_capturable_if_run_uncaptured = True  # as a warm-up is
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
    kept = _on_gpu(images, fabric.device)
    network, adam = fabric.setup(model, optimizer)
    network.mark_forward_method("reconstruct")
    model.train()
    return Run(
        model, network, adam, images, cache, kept, objective, config, fabric, share, start, log
    )


def _on_gpu(images: Tensor, device: torch.device) -> Tensor | None:
    """The images on a GPU, if they take no more than a quarter of the memory that is free."""
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return None
    return images.to(device)


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of a step, from 0: constant, or half a cosine from the first to zero."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.iterations))


def spread(images: Tensor, at_most: int) -> Tensor:
    """``at_most`` of the (N, ...) images or all, evenly over their order."""
    return images[torch.from_numpy(even_places(len(images), at_most))]


def _fit_scaler(model: SCRD, images: Tensor, device: torch.device) -> None:
    with torch.no_grad():
        some = spread(images, STATISTICS_IMAGES)
        model.scaler.fit(model.teacher(batch.to(device)) for batch in torch.split(some, 32))
