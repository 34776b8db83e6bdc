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
from numpy.typing import NDArray

from scrd.data.formats.info import Refused
from scrd.data.formats.planes import DISPLAY_AXES

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
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
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
    header = kind(head)
    if bytes(header["magic"])[:2] == b"ni":
        raise Refused("a NIfTI of two files (.hdr and .img); join them into one .nii")
    if header.get_data_dtype().kind not in "iuf":
        raise Refused("a NIfTI of colours or complex numbers")
    return header


def shape_of(header: Header) -> tuple[int, int, int]:
    """Voxels along the three axes of the file.

    Raises:
        Refused: It is not one volume.
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    space = shape[:3] if len(shape) == 4 and shape[3] == 1 else shape
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
    """

    there: NDArray[np.float64]
    back: NDArray[np.float64]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


def cut_of(header: Header) -> Cut:
    """Choose plane and order of the slices, see :func:`scrd.data.formats.nifti.read_nifti_info`.

    Raises:
        Refused: It is not one volume, or its affine is singular.
    """
    shape = shape_of(header)
    stored = np.array(header.get_best_affine(), np.float64)
    stored[:3] *= _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    sides = np.linalg.norm(stored[:3, :3], axis=0)
    if (
        not np.isfinite(stored).all()
        or not sides.min() > 0
        or abs(np.linalg.det(stored[:3, :3] / sides)) < 1e-3
    ):
        raise Refused("an affine that places voxels on top of each other")
    own = orientations.io_orientation(stored)
    plane = _slicing(sides[np.argsort(own[:, 0])])
    shown = orientations.axcodes2ornt(tuple(DISPLAY_AXES[plane]))
    there = orientations.ornt_transform(own, shown)
    back = orientations.ornt_transform(shown, own)
    cut = tuple(shape[int(axis)] for axis in np.argsort(there[:, 0]))
    affine = LPS @ stored @ orientations.inv_ornt_aff(there, shape)
    return Cut(there, back, (cut[0], cut[1], cut[2]), affine[:, _COLUMN_ROW_SLICE])


def _slicing(sides: NDArray[np.float64]) -> str:
    """The plane of the slices by the voxel's sides along right, front and head."""
    longest = int(sides.argmax())
    others = np.delete(sides, longest)
    if sides[longest] > _THICK * others.max():
        return ("sagittal", "coronal", "axial")[longest]
    return "axial"


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
