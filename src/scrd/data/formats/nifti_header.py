"""NIfTI headers: size, place in the patient, and how a volume is cut into slices."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from scrd.data.formats.info import Refused
from scrd.data.formats.nifti_geometry import place_of
from scrd.data.formats.planes import DISPLAY_AXES, PLANES

# nibabel tells what it mends in a header
nib.imageglobals.logger.setLevel("CRITICAL")

GZIP = b"\x1f\x8b"
LONGEST_HEAD = 540
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From patient coordinates as NIfTI has them (RAS) to those of DICOM, and back."""

MAX_BYTES = 1 << 30
"""Of a volume as float32."""

_MAX_OFFSET = 64 << 20  # bytes in front of the voxels
_HEADS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_THICK = 1.2  # a voxel side this much longer than the others is the distance of slices
_FEW = 16  # slices of a volume whose images would be strips in any other plane
_LARGE = 100.0  # mm, of a voxel
_SKEW, _TILT = 5.0, 35.0  # degrees: of rows against columns; of a gantry, at the most
_COLUMN_ROW_SLICE = [2, 1, 0, 3]

Header = Any  # nibabel has no types


def kind_of(head: bytes) -> type[Header] | None:
    """The class of a header by its size, in either byte order, and its magic."""
    for size, kind in _HEADS.items():
        magic = (b"n+1\0", b"ni1\0") if size == 348 else (b"n+2\0", b"ni2\0")
        place = 344 if size == 348 else 4
        if (
            size in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
            and head[place : place + 4] in magic
        ):
            return kind
    return None


@contextmanager
def unpacked(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file, through gzip where it is packed."""
    with open(path, "rb") as stream:
        packed = stream.read(2) == GZIP
        stream.seek(0)
        if not packed:
            yield stream
        else:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield cast(BinaryIO, unpacked)


def read_head(stream: BinaryIO) -> Header:
    """Read a header, and leave the stream behind it.

    Raises:
        Refused: It is none, or that of a file that is not read.
    """
    head = stream.read(348)
    if head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):  # 540
        head += stream.read(540 - 348)
    kind = kind_of(head)
    if kind is None or len(head) < kind.sizeof_hdr:
        raise Refused("not a NIfTI volume, or truncated in its header")
    header = kind(head, check=False)  # nibabel would mend what is to be refused
    if bytes(header["magic"])[:2] == b"ni":
        raise Refused("a NIfTI of two files (.hdr and .img); join them into one .nii")
    dtype_of(header)
    return header


def dtype_of(header: Header) -> np.dtype[Any]:
    """The type of the stored voxels.

    Raises:
        Refused: They are not plain numbers.
    """
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        raise Refused("a NIfTI of an unknown type of voxels") from None
    if dtype.kind not in "iufcV" or not dtype.itemsize:
        raise Refused("a NIfTI of an unknown type of voxels")
    if dtype.kind not in "iuf":
        raise Refused("a NIfTI of colours or complex numbers")
    return dtype


def scaling_of(header: Header) -> tuple[float, float]:
    """Slope and intercept by which stored values become those that are meant.

    Raises:
        Refused: They are no numbers. A slope of 0 or NaN means that there is none.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite(slope) or not np.isfinite(intercept):
        raise Refused(
            f"values scaled by a slope of {slope:g} and an intercept of {intercept:g}: not finite"
        )
    return slope, intercept


def shape_of(header: Header) -> tuple[int, int, int]:
    """Voxels along the three axes of the file.

    Raises:
        Refused: It is not one volume.
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    space = shape[:3] if len(shape) > 3 and set(shape[3:]) == {1} else shape
    if len(space) != 3 or min(space) < 1:
        raise Refused(f"not one volume: its shape is {'x'.join(map(str, shape))}")
    return space[0], space[1], space[2]


@dataclass(frozen=True)
class Cut:
    """How a volume is cut into slices.

    Attributes:
        there: Orientation transform from the voxel axes of the file to (slice, row, column).
        back: Its inverse.
        shape: (N, H, W).
        affine: (4, 4), takes (column, row, slice, 1) to patient coordinates in mm, LPS.
        problems: What speaks against it, a sentence each.
    """

    there: NDArray[np.float64]
    back: NDArray[np.float64]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    problems: tuple[str, ...]


def cut_of(header: Header) -> Cut:
    """Choose plane and order of the slices, see :func:`scrd.data.formats.nifti.read_nifti_info`.

    Raises:
        Refused: It is not one volume, no image, or its geometry lays none.
    """
    shape = shape_of(header)
    if sorted(shape)[1] == 1:
        raise Refused(f"a line of voxels and no image: its shape is {'x'.join(map(str, shape))}")
    place = place_of(header, shape)
    own = orientations.io_orientation(place.affine)
    along = np.argsort(own[:, 0])  # the file's axes that run to right, front and head
    sides = np.linalg.norm(place.affine[:3, :3], axis=0)
    plane = PLANES[_slicing(sides[along], np.array(shape)[along])]
    shown = orientations.axcodes2ornt(tuple(DISPLAY_AXES[plane]))
    there = orientations.ornt_transform(own, shown)
    back = orientations.ornt_transform(shown, own)
    cut = tuple(shape[int(axis)] for axis in np.argsort(there[:, 0]))
    affine = LPS @ place.affine @ orientations.inv_ornt_aff(there, shape)
    affine = affine[:, _COLUMN_ROW_SLICE]
    problems = (*place.problems, *_odd(affine))
    return Cut(there, back, (cut[0], cut[1], cut[2]), affine, problems)


def _slicing(sides: NDArray[np.float64], counts: NDArray[np.int_]) -> int:
    """The axis of the slices by the voxel's sides and counts along right, front and head."""
    fewest, longest = int(counts.argmin()), int(sides.argmax())
    # cut along another axis, a few slices would become strips
    if counts[fewest] == 1 or (
        counts[fewest] < _FEW and 4 * counts[fewest] <= np.delete(counts, fewest).min()
    ):
        return fewest
    return longest if sides[longest] > _THICK * np.delete(sides, longest).max() else 2


def _odd(affine: NDArray[np.float64]) -> Iterator[str]:
    """What no scanner does; the slices of a tilted gantry are sheared, yet flat."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if sides.max() > _LARGE:
        yield f"voxels of {' x '.join(f'{side:.3g}' for side in sides)} mm: is the unit wrong?"
    units = affine[:3, :3] / sides
    tilts = np.rad2deg(np.arcsin(np.abs(units.T @ units).clip(0, 1)))
    if tilts[0, 1] > _SKEW or max(tilts[0, 2], tilts[1, 2]) > _TILT:
        yield (
            f"its axes are {max(tilts[0, 1], tilts[0, 2], tilts[1, 2]):.0f} degrees off the right "
            "angle: the image is skewed"
        )


def check_size(header: Header, cut: Cut, max_pixels: int) -> None:
    """Raise `Refused` if slices or volume are too large."""
    slices, height, width = cut.shape
    if height * width > max_pixels:
        raise Refused(f"more than {max_pixels:,} pixels in a slice ({width}x{height})")
    if 4 * slices * height * width > MAX_BYTES:
        raise Refused(
            f"a volume of {slices}x{height}x{width} voxels, more than {MAX_BYTES >> 30} GiB"
        )
    if not 0 <= header["vox_offset"] <= _MAX_OFFSET:
        raise Refused(f"its voxels do not begin within {_MAX_OFFSET >> 20} MiB")
