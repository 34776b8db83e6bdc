"""By what a model knows its teacher again.

A model folder holds the teacher's tensors, but not its code: that comes from timm, or from the
package behind an entry point, in the version that is installed. Tensors of the same names and
shapes can be run otherwise, by other blocks or another normalisation, and every score would then
be wrong without a word. So a model keeps what its teacher answered to one image, and asks again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import Tensor

from scrd.model.backbone import STRIDES
from scrd.model.entry_point import GROUP, installed
from scrd.model.teacher import Teacher
from scrd.model.weights import TeacherError

TOLERANCE = 1e-3
"""Largest difference of a map's mean or standard deviation, in standard deviations of that map.
Threads, memory formats and libraries differ by a thousandth of it; both answers are taken on the
CPU, in single precision."""


@dataclass(frozen=True)
class Fingerprint:
    """A teacher, as a model was trained with it.

    Attributes:
        package: name and version of the package that brought it by an entry point, or None.
        sha256: of its tensors, their names, shapes and types, in hexadecimal.
        features: mean and standard deviation of each of the three maps of :func:`known_image`.
    """

    package: str | None
    sha256: str
    features: tuple[tuple[float, float], ...]


def known_image(size: int) -> Tensor:
    """An image without pattern, (1, 3, size, size), float32, in [0, 1), the same for good.

    Its i-th value is the fractional part of i²φ, φ the golden ratio, which Weyl's theorem spreads
    evenly; a generator's numbers may change from one version of PyTorch to the next.
    """
    i = torch.arange(3 * size * size, dtype=torch.float64)
    return (i.square() * ((1 + 5**0.5) / 2)).frac().float().view(1, 3, size, size)


def fingerprint(teacher: Teacher, image_size: int) -> Fingerprint:
    """Take the fingerprint of a teacher.

    Args:
        teacher: on the CPU.
        image_size: side of the model's input in pixels.

    Raises:
        TeacherError: its tensors cannot be saved, as where two are one.
    """
    state = {name: tensor.contiguous() for name, tensor in teacher.state_dict().items()}
    try:
        digest = hashlib.sha256(save(state)).hexdigest()
    except (RuntimeError, ValueError) as e:
        raise TeacherError(f"the teacher's tensors cannot be saved: {e}") from e
    return Fingerprint(teacher.package, digest, _answer(teacher, image_size))


def require_package(teacher: str, known: Fingerprint) -> None:
    """Raise TeacherError where a teacher came from an entry point that is not installed."""
    if known.package is not None and not installed(teacher):
        raise TeacherError(
            f"the teacher {teacher} comes from an entry point of the group {GROUP} that is not "
            f"installed here: install {known.package}, with which the model was trained"
        )


def require_same_answer(teacher: Teacher, known: Fingerprint, image_size: int) -> None:
    """Raise TeacherError where a teacher with a model's tensors answers otherwise than in training.

    Only the answer is compared: the tensors are the model's own, whatever those are that the
    package or timm has today.

    Args:
        teacher: on the CPU, with the tensors of the model.
        known: from its training.
        image_size: side of the model's input in pixels.
    """
    answer = _answer(teacher, image_size)
    for k, ((mean, std), (old_mean, old_std)) in enumerate(
        zip(answer, known.features, strict=True)
    ):
        if not max(abs(mean - old_mean), abs(std - old_std)) <= TOLERANCE * old_std:
            raise TeacherError(
                f"the teacher does not compute what it did in training: its map at stride "
                f"{STRIDES[k]} has mean {mean:.4g} and standard deviation {std:.4g} on a known "
                f"image, and had {old_mean:.4g} and {old_std:.4g}; install "
                f"{known.package or 'the version of timm'} that the model was trained with"
            )


def _answer(teacher: Teacher, image_size: int) -> tuple[tuple[float, float], ...]:
    maps = [u.double() for u in teacher(known_image(image_size))]
    return tuple((float(u.mean()), float(u.std(correction=0))) for u in maps)
