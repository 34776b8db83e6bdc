"""BatchNorm over the batch of all processes, so that several train what one would have."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Mean(torch.autograd.Function):
    """The mean of a tensor over the processes, of which each differentiates its own loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(x: Tensor) -> Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of the shares of all processes, equal in size.

    For devices on which ``torch.nn.SyncBatchNorm`` does not run: it knows CUDA alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), float; with running statistics in eval mode."""
        if not self.training:
            return super().forward(x)
        axes, shape = (0, 2, 3), (1, -1, 1, 1)
        wide = x.float()
        mean: Tensor = _Mean.apply(wide.mean(dim=axes))
        centred = wide - mean.view(shape)
        variance: Tensor = _Mean.apply(centred.square().mean(dim=axes))
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(x.dtype)


def replace_norms(network: nn.Module, kind: type[nn.modules.batchnorm._BatchNorm]) -> None:
    """Put norms of another class where ``network``'s are, with their very parameters and buffers.

    Args:
        network: changed in place.
        kind: ``BatchNorm2d``, ``SyncBatchNorm`` or :class:`JoinedBatchNorm2d`.
    """
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine)
                new._parameters, new._buffers = norm._parameters, norm._buffers
                setattr(parent, name, new.train(norm.training))
