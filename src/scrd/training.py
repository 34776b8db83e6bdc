"""The training loop: reproducible from a seed, resumable at any iteration."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scrd.config import Config
from scrd.errors import ScrdError
from scrd.memory import reused_memory
from scrd.model import SCRD
from scrd.model.sync_norm import JoinedBatchNorm2d, replace_norms
from scrd.objectives import OBJECTIVES, StepFeatures
from scrd.step_features import cached_features, noisy_features

LOG_EVERY = 10
STATISTICS_IMAGES = 768
"""Training normals that give the statistics of features and distances, at the most."""
TRAINABLE = ("bottleneck", "student", "scale_head")


@dataclass(frozen=True)
class LogEntry:
    """One line of the training log.

    Attributes:
        iteration: steps done.
        loss: mean objective of the last batch.
        scale_weights: α averaged over the last batch, one a scale.
        images_per_second: since the last entry.
    """

    iteration: int
    loss: float
    scale_weights: tuple[float, ...]
    images_per_second: float


class TrainingError(ScrdError):
    """Training cannot start or go on; the message says why."""


def _generator(*key: int) -> torch.Generator:
    """A CPU generator that depends on the whole key, so that any step can be replayed alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=_generator(seed, 1, epoch))


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


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of a step, from 0: constant, or half a cosine from the first to zero."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.iterations))


def _trainable_state(model: SCRD) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if k.split(".")[0] in TRAINABLE}


def _trainable_parameters(model: SCRD) -> dict[str, torch.nn.Parameter]:
    return {k: p for k, p in model.named_parameters() if k.split(".")[0] in TRAINABLE}


def save_checkpoint(
    path: Path,
    model: SCRD,
    optimizer: torch.optim.Optimizer,
    log: list[LogEntry],
    iteration: int,
    identity: str,
) -> None:
    """Write weights, Adam's moments and the log to one safetensors file, atomically."""
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in _trainable_state(model).items()}
    for name, p in _trainable_parameters(model).items():
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value).contiguous()
    metadata = {
        "iteration": str(iteration),
        "identity": identity,
        "log": json.dumps([asdict(entry) for entry in log]),
    }
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata)
    with open(temporary, "rb") as f:
        os.fsync(f.fileno())
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, model: SCRD, optimizer: torch.optim.Optimizer, identity: str
) -> tuple[int, list[LogEntry]]:
    """Restore what :func:`save_checkpoint` wrote into ``model`` and ``optimizer``.

    Returns:
        Iterations done, and the log up to there.

    Raises:
        TrainingError: the file is unreadable, or belongs to other settings or other data.
    """
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a dict
    except Exception as e:
        raise TrainingError(f"{path}: not a readable checkpoint ({e})") from e
    if not {"identity", "iteration", "log"} <= set(metadata):
        raise TrainingError(f"{path}: not a readable checkpoint (written by something else)")
    if metadata["identity"] != identity:
        theirs, ours = json.loads(metadata["identity"]), json.loads(identity)
        changed = [k for k in ours if theirs.get(k) != ours[k]]
        raise TrainingError(
            f"{path}: cannot resume, {', '.join(changed)} changed since the interrupted training; "
            "use the same settings and data, or start anew without --resume"
        )
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(weights, strict=False)
    for name, p in _trainable_parameters(model).items():
        prefix = f"optimizer.{name}."
        state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if state:
            optimizer.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in state.items()}
    entries = [
        LogEntry(**{**e, "scale_weights": tuple(e["scale_weights"])})
        for e in json.loads(metadata["log"])
    ]
    return int(metadata["iteration"]), entries


def spread(images: Tensor, at_most: int) -> Tensor:
    """``at_most`` of the (N, ...) images or all, evenly over their order."""
    step = max(1, math.ceil(len(images) / at_most))
    return images[::step]


def _fit_scaler(model: SCRD, images: Tensor, device: torch.device) -> None:
    with torch.no_grad():
        some = spread(images, STATISTICS_IMAGES)
        model.scaler.fit(model.teacher(batch.to(device)) for batch in torch.split(some, 32))


def _share(fabric: Fabric, batch_size: int) -> slice:
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
        fabric: devices and precision, see :func:`scrd.runtime.make_fabric`; launched.
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
    share = _share(fabric, config.batch_size)
    torch.backends.cudnn.deterministic = True
    model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    cuda = fabric.device.type == "cuda"
    parallel = fabric.world_size > 1
    if parallel:
        replace_norms(model.bottleneck, nn.SyncBatchNorm if cuda else JoinedBatchNorm2d)
        replace_norms(model.student, nn.SyncBatchNorm if cuda else JoinedBatchNorm2d)
    optimizer = torch.optim.Adam(
        _trainable_parameters(model).values(), lr=config.learning_rate, betas=config.betas
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
                generator = _generator(config.seed, 2, step)
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
