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
from torch.nn.utils.fusion import fuse_conv_bn_eval

_SIDE = 64
_TOLERANCE = 1e-3
_PARTS = ("running_mean", "running_var", "weight", "bias")


class Pair(NamedTuple):
    """A convolution and the BatchNorm that sees what it puts out; names in the backbone."""

    convolution: str
    norm: str


def fold_batchnorm(backbone: nn.Module) -> nn.Module:
    """Fold BatchNorm into the convolutions wherever that leaves the features as they are.

    Whether it does is tried out on a copy with random statistics, so that it depends on the
    architecture alone: a saved model finds the tensors that it had.

    Args:
        backbone: in eval mode, on the CPU, from (B, 3, H, W), float32, to feature maps; changed.

    Returns:
        The backbone.
    """
    if any(tensor.is_meta for tensor in backbone.parameters()):
        return backbone
    tried = copy.deepcopy(backbone)
    try:
        pairs = _pairs(tried)
        alike = _tried(tried, pairs)
    except Exception:  # it wants images of another size
        return backbone
    if pairs and alike:
        _fold(backbone, pairs)
    return backbone


def _tried(backbone: nn.Module, pairs: Sequence[Pair]) -> bool:
    """Whether the features stay, whatever the statistics are."""
    generator = torch.Generator().manual_seed(0)
    for pair in pairs:
        norm = backbone.get_submodule(pair.norm)
        for part in _PARTS:
            if (tensor := getattr(norm, part)) is not None:
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    image = torch.rand(1, 3, _SIDE, _SIDE, generator=generator)
    with torch.no_grad():
        expected = [u.clone() for u in backbone(image)]
        _fold(backbone, pairs)
        return all(map(_alike, backbone(image), expected))


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
            pairs.extend(Pair(conv, name) for conv in before)

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
        folded = fuse_conv_bn_eval(convolution.double(), norm.double())
        backbone.set_submodule(pair.convolution, folded.float())
        # timm's BatchNorm brings its activation along
        after = [norm.drop, norm.act] if hasattr(norm, "act") else []
        backbone.set_submodule(pair.norm, nn.Sequential(*after).float())


def _alike(u: Tensor, v: Tensor) -> bool:
    return bool((u - v).abs().max() <= _TOLERANCE * v.abs().max())
