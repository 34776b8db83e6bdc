"""Backbones of timm: hierarchical ones, and plain vision transformers."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import timm
from torch import nn

from scrd.model.backbone import STRIDES, Backbone
from scrd.model.entry_point import GROUP
from scrd.model.vit import ResampledViT, quarters
from scrd.model.weights import (
    StateDict,
    TeacherError,
    adapt_names,
    packaged_weights,
    read_state_dict,
    timm_name,
)


def timm_backbone(teacher: str, weights: str | None) -> Backbone:
    """Build a backbone of timm; :func:`scrd.model.teacher.build_teacher` has the arguments.

    Raises:
        TeacherError: unknown backbone, weights that cannot be had or do not fit.
    """
    name = timm_name(teacher)
    patch, indices = _levels(name)
    options: dict[str, Any] = {"pretrained": False}
    source = "random"
    if weights in ("random", "deferred"):
        if weights == "random":
            warnings.warn(
                f"the teacher {teacher} has RANDOM weights: its features mean nothing, "
                "scores are for testing only",
                stacklevel=3,
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
    if patch is not None:
        options["dynamic_img_size"] = True
    module: Any = _create(teacher, name, indices, options)
    channels = tuple(module.feature_info.channels())
    if patch is not None:
        module = ResampledViT(module, patch)
    mirrors = name if patch is None else "vit"
    cfg: Any = timm.get_pretrained_cfg(name)
    return Backbone(module, channels, source, mirrors, cfg.mean, cfg.std)


def _levels(name: str) -> tuple[int | None, tuple[int, ...]]:
    """Which feature levels are the three maps, and the patch side where all have that stride.

    The last level of each of the strides 4, 8 and 16, or, where there is one stride only, the
    quarters of the depth.
    """
    try:
        backbone: Any = timm.create_model(name, pretrained=False, features_only=True)
    except Exception as e:
        raise TeacherError(
            f"timm has no feature backbone {name!r} ({e}), "
            f"nor has an installed package an entry point of the group {GROUP} for it"
        ) from e
    reductions = backbone.feature_info.reduction()
    at = {stride: i for i, stride in enumerate(reductions)}
    if len(at) == 1 and hasattr(backbone.model, "blocks"):
        full: Any = timm.create_model(name, pretrained=False)
        return int(reductions[0]), quarters(len(full.blocks))
    missing = [s for s in STRIDES if s not in at]
    if missing:
        raise TeacherError(
            f"{name} has no feature maps at strides {missing} (it has {reductions}): "
            "choose a hierarchical backbone such as resnet18, convnext_tiny or "
            "efficientnet_lite0, or a vision transformer of one stride"
        )
    return None, tuple(at[s] for s in STRIDES)


def _create(
    teacher: str, name: str, indices: tuple[int, ...], options: dict[str, Any]
) -> nn.Module:
    backbone: Any
    log = logging.getLogger("timm.models._builder")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of the classifier's tensors, which no feature needs
    try:
        backbone = timm.create_model(name, features_only=True, out_indices=indices, **options)
    except Exception as e:
        if isinstance(e, TypeError) and "dynamic_img_size" in str(e):
            raise TeacherError(
                f"timm's {name} cannot be made for images of any size, as a teacher must be"
            ) from e
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
    return backbone  # type: ignore[no-any-return]


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
