"""Checkpoints: weights, Adam's moments and the log in one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scrd.model import SCRD
from scrd.model.scrd import TRAINED
from scrd.system.files import atomic
from scrd.training.log import LogEntry, TrainingError


def trainable_state(model: SCRD) -> dict[str, Tensor]:
    """The tensors of a model that training changes, by name; views, not copies."""
    return {k: v for k, v in model.state_dict().items() if k.split(".")[0] in TRAINED}


def trainable_parameters(model: SCRD) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name."""
    return {k: p for k, p in model.named_parameters() if k.split(".")[0] in TRAINED}


def save_checkpoint(
    path: Path,
    model: SCRD,
    optimizer: torch.optim.Optimizer,
    log: list[LogEntry],
    iteration: int,
    identity: str,
) -> None:
    """Write weights, Adam's moments and the log to one safetensors file, atomically."""
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in trainable_state(model).items()}
    for name, p in trainable_parameters(model).items():
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value).contiguous()
    metadata = {
        "iteration": str(iteration),
        "identity": identity,
        "log": json.dumps([asdict(entry) for entry in log]),
    }
    with atomic(path, durable=True) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as e:  # a full disk has no OSError here
            raise TrainingError(f"{path}: the checkpoint cannot be written: {e}") from e


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
            "use the same settings and data, or delete this file to start anew"
        )
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(weights, strict=False)
    for name, p in trainable_parameters(model).items():
        prefix = f"optimizer.{name}."
        state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if state:
            there = optimizer.param_groups[0]["capturable"]  # then steps are counted there too
            optimizer.state[p] = {
                # laid out like the parameter, without which Adam in one kernel refuses them
                k: torch.empty_like(p).copy_(v) if k != "step" else v.to(p.device) if there else v
                for k, v in state.items()
            }
    entries = [
        LogEntry(**{**e, "scale_weights": tuple(e["scale_weights"])})
        for e in json.loads(metadata["log"])
    ]
    return int(metadata["iteration"]), entries
