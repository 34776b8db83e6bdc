"""BatchNorm of a frozen backbone, folded into the convolutions before it.

In eval mode BatchNorm is one scale and one shift a channel, which the convolution can apply itself:
the same features by a pass over memory less for every convolution.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

_SIDE = 64
_TOLERANCE = 1e-3
_PARTS = ("running_mean", "running_var", "weight", "bias")


class Pair(NamedTuple):
    """A convolution and the BatchNorm that alone sees what it puts out; names in the backbone."""

    convolution: str
    norm: str
    eps: float


def fold_batchnorm(backbone: nn.Module) -> nn.Module:
    """Fold BatchNorm into the convolutions wherever that leaves the features as they are.

    Whether it does is tried out on a copy with random statistics, so that it depends on the
    architecture alone: a saved model finds the tensors that it had. The backbone still loads the
    tensors that it has with BatchNorm.

    Args:
        backbone: in eval mode, on the CPU, from (B, 3, H, W), float32, to feature maps; changed.

    Returns:
        The backbone.
    """
    tried = copy.deepcopy(backbone)
    pairs = _pairs(tried)
    if not pairs:
        return backbone
    generator = torch.Generator().manual_seed(0)
    for pair in pairs:
        norm = tried.get_submodule(pair.norm)
        for part in _PARTS:
            if (tensor := getattr(norm, part)) is not None:
                drawn = torch.rand(tensor.shape, generator=generator)
                tensor.data.copy_(drawn + 0.5)
    image = torch.rand(1, 3, _SIDE, _SIDE, generator=generator)
    with torch.no_grad():
        expected = [u.clone() for u in tried(image)]
        _fold(tried, pairs)
        found = list(tried(image))
    if all(_alike(u, v) for u, v in zip(found, expected, strict=True)):
        _fold(backbone, pairs)
    return backbone


def _pairs(backbone: nn.Module) -> list[Pair]:
    """What follows what, in a pass over a small image."""
    outputs: list[tuple[str, object]] = []
    calls: list[str] = []
    pairs: list[Pair] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        calls.append(name)
        if isinstance(module, nn.Conv2d):
            outputs.append((name, output))
        else:
            before = [conv for conv, u in outputs if u is inputs[0]]
            pairs.extend(Pair(conv, name, module.eps) for conv in before)  # type: ignore[arg-type]

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d)
        or (isinstance(module, nn.BatchNorm2d) and module.track_running_stats)
    ]
    with torch.no_grad():
        backbone(torch.zeros(1, 3, _SIDE, _SIDE))
    for handle in handles:
        handle.remove()
    convolutions = [pair.convolution for pair in pairs]
    return [
        pair
        for pair in pairs
        if calls.count(pair.convolution) == calls.count(pair.norm) == 1
        and convolutions.count(pair.convolution) == 1
    ]


def _fold(backbone: nn.Module, pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        convolution: Any = backbone.get_submodule(pair.convolution)
        norm: Any = backbone.get_submodule(pair.norm)
        backbone.set_submodule(pair.convolution, fuse_conv_bn_eval(convolution, norm))
        # timm's BatchNorm brings its activation along
        after = [norm.drop, norm.act] if hasattr(norm, "act") else []
        backbone.set_submodule(pair.norm, nn.Sequential(*after))
    hook = partial(_fold_tensors, pairs)
    backbone.register_load_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]


def _fold_tensors(
    pairs: Sequence[Pair], _: nn.Module, state: dict[str, Tensor], prefix: str, *others: object
) -> None:
    """Let a folded backbone load the tensors that it has with BatchNorm."""
    for pair in pairs:
        convolution, norm = f"{prefix}{pair.convolution}.", f"{prefix}{pair.norm}."
        if f"{norm}running_mean" not in state:
            continue
        mean, var, weight, bias = (state.pop(norm + part, None) for part in _PARTS)
        state.pop(f"{norm}num_batches_tracked", None)
        kernel, shift = fuse_conv_bn_weights(
            state[f"{convolution}weight"],
            state.get(f"{convolution}bias"),
            mean,  # type: ignore[arg-type]
            var,  # type: ignore[arg-type]
            pair.eps,
            weight,
            bias,
        )
        state[f"{convolution}weight"], state[f"{convolution}bias"] = kernel.data, shift.data


def _alike(u: Tensor, v: Tensor) -> bool:
    return bool((u - v).abs().max() <= _TOLERANCE * v.abs().max())
