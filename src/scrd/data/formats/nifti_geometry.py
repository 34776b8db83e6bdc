"""Where a NIfTI header lays its voxels: one of up to three geometries, and what speaks against it.

A header may hold an sform (any affine), a qform (a rotation and voxel sides) or only the sides
("pixdim"). As in the standard's reference code the sform is taken where its code says that it is
there, else the qform, else the sides.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import orientations, quaternions
from numpy.typing import NDArray

from scrd.data.formats.info import Refused

_MILLIMETRES = {1: 1000.0, 3: 0.001}  # the codes of metre and micron
_ROTATION = 1e-3  # by which a quaternion may be longer than 1: headers hold rounded numbers
_SAME = 0.05  # of a side, by which the sform may differ from the sides
_FITTED = 0.5  # the same where it leads to a template that the head was stretched to
_DISTINCT = 0.9  # cosine of the smallest angle between two voxel axes
_OF_THE_SCAN = (1, 2)  # codes of geometries that keep the sides

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where the voxels lie.

    Attributes:
        affine: (4, 4), takes voxel indices to patient coordinates in mm, x to the right, y to
            the front, z to the head (RAS).
        problems: What speaks against it, a sentence each.
    """

    affine: Affine
    problems: tuple[str, ...]


def place_of(header: Any, shape: tuple[int, int, int]) -> Place:
    """Choose one geometry.

    Args:
        header: Of nibabel, as it is in the file.
        shape: Voxels along the three axes of the file.

    Raises:
        Refused: The one that counts lays no volume.
    """
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    sides = np.array(header["pixdim"][1:4], np.float64) * unit
    problems: list[str] = []
    if header["sform_code"] > 0:
        chosen = np.eye(4)
        chosen[:3] = [header[f"srow_{axis}"] for axis in "xyz"]
        chosen[:3] *= unit
        _check(chosen, "its sform is an affine")
        problems += _against_sform(header, chosen, sides, unit, shape)
    elif header["qform_code"] > 0:
        chosen = _qform(header, sides, unit)
    else:
        _check_sides(sides)
        chosen = np.diag([-sides[0], sides[1], sides[2], 1.0])
        chosen[:3, 3] = -chosen[:3, :3] @ (np.array(shape) - 1) / 2
        problems.append(
            "its header does not say how it lies in the patient (codes of sform and qform 0): "
            "left and right, and the planes, may be taken for one another"
        )
    return Place(chosen, tuple(problems))


def farthest(one: Affine, other: Affine, shape: tuple[int, int, int]) -> float:
    """Largest distance in mm between the two places of a corner of a volume.

    Args:
        one: (4, 4), from voxel indices to mm.
        other: Likewise.
        shape: Voxels along its axes.
    """
    ends = itertools.product(*((0, n - 1) for n in shape))
    corners = np.array([[*end, 1] for end in ends], np.float64)
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())


def mend_qform(header: Any, problems: Sequence[str]) -> None:
    """Leave a header that a map is written with one geometry, which every reader takes.

    Args:
        header: A copy of the source's geometry; changed in place.
        problems: Of :func:`place_of` for the source.
    """
    if problems and header["sform_code"] > 0:
        header["qform_code"] = 0
    vector = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    length = float(np.linalg.norm(vector))
    if header["qform_code"] > 0 and length > 1:
        for axis, value in zip("bcd", vector / length, strict=True):
            header[f"quatern_{axis}"] = value


def _against_sform(
    header: Any, sform: Affine, sides: Affine, unit: float, shape: tuple[int, int, int]
) -> list[str]:
    """What the header says beside its sform that contradicts it."""
    code = int(header["sform_code"])
    if header["qform_code"] > 0:
        try:
            qform = _qform(header, sides, unit)
        except Refused as error:
            return [f"{error}; its sform is used"]
        if (orientations.io_orientation(sform) != orientations.io_orientation(qform)).any():
            return ["its sform and qform lay the voxels along different axes; the sform is used"]
        # of different codes they lead to different coordinates, and may differ
        off = farthest(sform, qform, shape)
        if code == int(header["qform_code"]) and off > sides.min() / 2:
            return [f"its sform and qform are up to {off:.1f} mm apart; the sform is used"]
    if np.isfinite(sides).all() and sides.min() > 0:
        own = np.linalg.norm(sform[:3, :3], axis=0)
        apart = 1 / np.linalg.norm(np.linalg.inv(sform[:3, :3]), axis=1)  # across, where sheared
        spare = 1 + (_SAME if code in _OF_THE_SCAN else _FITTED)
        if (sides > own * spare).any() or (sides < apart / spare).any():
            return [
                f"its sform makes voxels of {_lengths(own)} mm, its pixdim of {_lengths(sides)}; "
                "the sform is used"
            ]
    return []


def _qform(header: Any, sides: Affine, unit: float) -> Affine:
    _check_sides(sides)
    vector = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    length = float(np.linalg.norm(vector))
    if not length <= 1 + _ROTATION:  # nor NaN
        raise Refused("a quaternion (qform) that is no rotation")
    vector /= max(1.0, length)
    real = max(0.0, 1 - float(vector @ vector)) ** 0.5
    affine = np.eye(4)
    handed = -1.0 if header["pixdim"][0] < 0 else 1.0
    affine[:3, :3] = quaternions.quat2mat([real, *vector]) * sides * [1, 1, handed]
    affine[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    affine[:3, 3] *= unit
    _check(affine, "its qform is an affine")
    return affine


def _check_sides(sides: Affine) -> None:
    if not (np.isfinite(sides).all() and sides.min() > 0):
        raise Refused(f"voxel sides (pixdim) of {_lengths(sides)} mm, which are no lengths")


def _check(affine: Affine, what: str) -> None:
    if not np.isfinite(affine).all():
        raise Refused(f"{what} of values that are not finite numbers")
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not sides.min() > 0:
        raise Refused(f"{what} that places voxels on top of each other")
    cosines = np.abs((affine[:3, :3] / sides).T @ (affine[:3, :3] / sides))
    volume = abs(np.linalg.det(affine[:3, :3] / sides))
    if cosines[np.triu_indices(3, 1)].max() > _DISTINCT or volume < 1e-3:
        raise Refused(f"{what} that places voxels on top of each other, or nearly so")


def _lengths(sides: Affine) -> str:
    return "x".join(f"{side:.3g}" for side in sides)
