"""The ONNX Model Zoo's ResNet-50 v2 (pre-activation) as a teacher: stages 1 to 3.

He et al., *Identity mappings in deep residual networks*, ECCV 2016. The weights are a file of
safetensors with the names of the original; they are not part of this package.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

VARIABLE = "SCRD_RESNET50V2"
_FILE = Path("shared", "teachers", "resnet50v2-imagenet.safetensors")
_UNITS = (3, 4, 6)
_PARTS = {"weight": "gamma", "bias": "beta"}


def weights_file() -> Path:
    """The file that ``SCRD_RESNET50V2`` names, else the one beside the checkout.

    Raises:
        FileNotFoundError: it is not there.
    """
    beside = [folder / _FILE for folder in Path(__file__).resolve().parents]
    named = os.environ.get(VARIABLE)
    for path in [Path(named)] if named else beside:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{named or _FILE}: no such file; {VARIABLE} names the weights of the ResNet-50 v2"
    )


class Unit(nn.Module):
    """A bottleneck unit: norm and ReLU before each convolution, nothing after the sum.

    Args:
        first: a map (B, C_in, H, W) becomes (B, 4 width, H/stride, W/stride) by a shortcut of its
            own; otherwise the shortcut is the map itself.
    """

    def __init__(self, channels: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (channels, width, width))
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(channels, width, 1, bias=False),
                nn.Conv2d(width, width, 3, stride, 1, bias=False),
                nn.Conv2d(width, 4 * width, 1, bias=False),
            ]
        )
        if first:
            self.convolutions.append(nn.Conv2d(channels, 4 * width, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Add what the unit finds to its shortcut."""
        y = z = F.relu(self.norms[0](x))
        for convolution, norm in zip(self.convolutions[:2], self.norms[1:], strict=True):
            z = F.relu(norm(convolution(z)))
        shortcut = self.convolutions[3](y) if len(self.convolutions) == 4 else x
        total: Tensor = self.convolutions[2](z) + shortcut
        return total


class ResNet50V2(nn.Module):
    """Maps an image to the outputs of three stages, as the next stage sees them first.

    Attributes:
        channels: of the maps at strides 4, 8, 16.
        mirrors: the student has the blocks and depths that RD4AD gives it for ResNet-50.
    """

    channels = (256, 512, 1024)
    mirrors = "resnet50"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(64)])
        self.convolution = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.stages = nn.ModuleList()
        inner = 64
        for k, units in enumerate(_UNITS):
            width = 64 << k
            stage = nn.Sequential()
            for unit in range(units):
                stride = 2 if k > 0 and unit == 0 else 1
                stage.append(Unit(inner, width, stride, first=unit == 0))
                inner = 4 * width
            self.stages.append(stage)
        self.ends = nn.ModuleList(nn.BatchNorm2d(c) for c in self.channels)
        self._load(load_file(weights_file()))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W), float32, in [0, 1] to three maps (B, C_k, H/s_k, W/s_k), s = 4, 8, 16.

        They are normalised and rectified, so that no value is negative.
        """
        x = self.convolution(self.norms[0]((image - self.mean) / self.std))
        x = F.max_pool2d(F.relu(self.norms[1](x)), 3, 2, 1)
        maps = []
        for stage, end in zip(self.stages, self.ends, strict=True):
            x = stage(x)
            maps.append(F.relu(end(x)))
        return maps

    def _load(self, tensors: dict[str, Tensor]) -> None:
        """Give every layer its tensors: the file numbers them through each stage."""
        norms = [("batchnorm0", self.norms[0]), ("batchnorm1", self.norms[1])]
        convolutions = [("conv0", self.convolution)]
        for s, (stage, end) in enumerate(zip(self.stages, self.ends, strict=True), start=1):
            units = list(stage)
            inner_norms = [n for unit in units for n in unit.norms]
            norms += [(f"stage{s}_batchnorm{i}", n) for i, n in enumerate(inner_norms)]
            norms.append((f"stage{s + 1}_batchnorm0", end))
            inner = [c for unit in units for c in unit.convolutions]
            convolutions += [(f"stage{s}_conv{i}", c) for i, c in enumerate(inner)]
        with torch.no_grad():
            for name, convolution in convolutions:
                convolution.weight.copy_(tensors[f"{name}_weight"])
            for name, norm in norms:
                for part in ("weight", "bias", "running_mean", "running_var"):
                    getattr(norm, part).copy_(tensors[f"{name}_{_PARTS.get(part, part)}"])
