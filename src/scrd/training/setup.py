"""What the steps of a training run on: network, optimiser, images and features on their devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from scrd.training.batches import batch_indices, generator_of, share_of
from scrd.training.checkpoint import load_checkpoint, trainable_parameters
from scrd.training.log import LogEntry, TrainingError
from scrd.training.sync_norm import JoinedBatchNorm2d, replace_norms
from scrd.training.teacher_features import cached_features, lesion_features, noisy_features

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
    objective: Objective
    config: Config
    fabric: Fabric
    share: slice
    start: int
    log: list[LogEntry]

    def fetch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process's part of a batch.

        Returns:
            Places in the set, (B,), int64, and x, (B, C, S, S), on the device; None where nothing
            needs the images themselves.
        """
        size, count = self.config.batch_size, len(self.images)
        own = batch_indices(step, size, count, self.config.seed)[self.share]
        if self.cache is not None and not self.objective.contrastive:
            return own, None
        cuda = self.fabric.device.type == "cuda"
        image = self.images[own]
        image = (image.pin_memory() if cuda else image).to(self.fabric.device, non_blocking=cuda)
        return own, image.contiguous(memory_format=torch.channels_last)

    def clean(self, own: Tensor, image: Tensor | None) -> Sequence[Tensor]:
        """Teacher features u_k of the images, (B, C_k, H_k, W_k) each."""
        if self.cache is not None:
            at = own.to(self.fabric.device)
            return [f[at].contiguous(memory_format=torch.channels_last) for f in self.cache]
        assert image is not None
        return self.model.encode(image)

    def noisy(
        self, clean: Sequence[Tensor], image: Tensor | None, step: int
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """Teacher features z_k of the perturbed images, and where they are, (B, 1, S, S).

        The footprint of the noise, bool; or, of lesions, float in [0, 1].
        """
        if not self.objective.contrastive:
            return (), None
        assert image is not None
        generator = generator_of(self.config.seed, 2, step)
        if self.objective.lesions:
            size = self.config.batch_size
            return lesion_features(self.model, clean, image, size, generator, self.share)
        return noisy_features(self.model, image, self.config, generator, self.share)

    def descend(self, loss: Tensor, step: int) -> None:
        """Take one step of Adam."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()

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
    share = share_of(fabric, config.batch_size)
    torch.backends.cudnn.deterministic = True
    model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fabric.world_size > 1:
        joined = nn.SyncBatchNorm if fabric.device.type == "cuda" else JoinedBatchNorm2d
        for part in model.trained_parts():
            replace_norms(part, joined)
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
    network, adam = fabric.setup(model, optimizer)
    network.mark_forward_method("reconstruct")
    model.train()
    return Run(model, network, adam, images, cache, objective, config, fabric, share, start, log)


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
