"""Backbones that other packages bring, by an entry point of their own."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import torch
from torch import Tensor, nn

from scrd.model.backbone import STRIDES, Backbone
from scrd.model.blocks import MIRRORED
from scrd.model.weights import TeacherError

GROUP = "scrd.teachers"
"""An entry point of this group maps the name of a teacher to a callable without arguments."""

BENCHMARKED = {
    "dinov2_vits14": "benchmarks/teachers[dinov2]",
    "resnet50v2": "benchmarks/teachers",
}
"""Teachers that suites and documentation name, and the package of the repository that brings each:
``scrd-benchmark-teachers``, by its folder and extra."""

_SIDE = 64


def entry_point_backbone(teacher: str, weights: str | None) -> Backbone | None:
    """Build the backbone that an installed package brings under the name ``teacher``.

    The entry point's callable gives a module in eval mode or not, with its weights, and

    - ``channels``: (C_1, C_2, C_3);
    - ``forward``: from (B, 3, H, W), float32, in [0, 1], H and W multiples of 16, which it
      normalises itself, to three maps (B, C_k, H/s_k, W/s_k), float32, s = 4, 8, 16;
    - optionally ``mirrors``: the backbone whose blocks and depths the student takes, one of
      :data:`scrd.model.blocks.MIRRORED`; without it, ``resnet18``.

    Args:
        teacher: its name.
        weights: None, or ``"deferred"``; the module brings its weights either way.

    Returns:
        None where no package brings a teacher of this name, and none is known to.

    Raises:
        TeacherError: two packages bring it, it cannot be built or is none, weights are given, or
            it is one of ``BENCHMARKED`` and not installed.
    """
    found = sorted(entry_points(group=GROUP, name=teacher), key=_package)
    if not found and teacher in BENCHMARKED:
        raise TeacherError(
            f"the package scrd-benchmark-teachers, which brings the teacher {teacher}, is not "
            f"installed: `pip install './{BENCHMARKED[teacher]}'` in a checkout of scrd"
        )
    if not found:
        return None
    if len(found) > 1:
        packages = " and ".join(_package(entry) for entry in found)
        raise TeacherError(f"the teacher {teacher} is there twice, from {packages}: uninstall one")
    package = _package(found[0])
    if weights not in (None, "deferred"):
        raise TeacherError(
            f"the teacher {teacher} of the package {package} brings its own weights: "
            f"leave out --weights {weights}"
        )
    try:
        module = found[0].load()()
        channels = _checked(module)
        mirrors = _mirrored(module)
    except Exception as e:
        raise TeacherError(
            f"the teacher {teacher} of the package {package} cannot be used: "
            + " ".join(f"{type(e).__name__}: {e}".split())[:400]
        ) from e
    return Backbone(module, channels, f"package {package}", mirrors, package=package)


def installed(teacher: str) -> bool:
    """Whether a package here brings a teacher of this name."""
    return bool(entry_points(group=GROUP, name=teacher))


def _package(entry: EntryPoint) -> str:
    """Name and version of the distribution of an entry point."""
    return entry.module if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _mirrored(module: nn.Module) -> str:
    mirrors = getattr(module, "mirrors", "resnet18")
    if mirrors not in MIRRORED:
        raise ValueError(f"its mirrors is {mirrors!r}, not one of {', '.join(MIRRORED)}")
    return str(mirrors)


def _checked(module: object) -> tuple[int, int, int]:
    """The channels of ``module``, which does what is asked of a backbone on a small image."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"its entry point gives a {type(module).__name__}, not an nn.Module")
    c1, c2, c3 = (int(c) for c in module.channels)  # type: ignore[union-attr]
    with torch.no_grad():
        maps: list[Tensor] = list(module.eval()(torch.full((1, 3, _SIDE, _SIDE), 0.5)))
    expected = [(1, c, _SIDE // s, _SIDE // s) for c, s in zip((c1, c2, c3), STRIDES, strict=True)]
    shapes = [tuple(u.shape) for u in maps]
    if shapes != expected:
        raise ValueError(f"it gives maps of the shapes {shapes}, not {expected}")
    if not all(u.dtype == torch.float32 and bool(u.isfinite().all()) for u in maps):
        raise ValueError("it gives maps that are not float32 or not finite")
    return c1, c2, c3
