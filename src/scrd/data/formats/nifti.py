"""NIfTI volumes, cut into slices that lie as DICOM images of the same plane do.

Voxel axes are permuted and flipped, never interpolated. :func:`write_like` undoes exactly that.
"""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from scrd.data.formats.guard import MAX_PIXELS, refusing
from scrd.data.formats.info import ImageInfo, Refused
from scrd.data.formats.nifti_geometry import farthest, mend_qform
from scrd.data.formats.nifti_header import (
    GZIP,
    LONGEST_HEAD,
    LPS,
    MAX_BYTES,
    Cut,
    Header,
    check_size,
    cut_of,
    dtype_of,
    kind_of,
    read_head,
    scaling_of,
    shape_of,
    unpacked,
)
from scrd.data.formats.planes import plane_of
from scrd.system.files import atomic

_BLOCK = 1 << 22  # voxels that are converted at once


@dataclass(frozen=True)
class NiftiInfo:
    """What a header says.

    Attributes:
        slices: N, how many images `read_slice` cuts.
        info: Of each of them.
        affine: (4, 4) float64, takes (column, row, slice, 1) to patient coordinates in mm, x to
            the left, y to the back, z to the head (DICOM, LPS).
        problems: What in the header contradicts itself, a sentence each.
    """

    slices: int
    info: ImageInfo
    affine: NDArray[np.float64]
    problems: tuple[str, ...]


def is_nifti(stream: BinaryIO) -> bool:
    """Whether a file, at its start, is a NIfTI volume, compressed by gzip or not."""
    head = stream.read(LONGEST_HEAD)
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(
                head + stream.read(1 << 16), LONGEST_HEAD
            )
        except zlib.error:
            return False
    return kind_of(head) is not None


def read_nifti_info(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NiftiInfo:
    """Read size, plane and place of a volume; no voxel is read.

    Slices stand on the axis with the fewest voxels, where these are few: one, or less than 16 and
    no more than a quarter of those along the others. Else on the axis whose voxel side is more
    than 20 % longer than the others, else on the one that is nearest to head and feet.

    Raises:
        ImageError: The header cannot be read, or announces a volume that cannot be.
    """
    with refusing(path, "reading the header"), unpacked(path) as stream:
        header = read_head(stream)
        cut = cut_of(header)
        check_size(header, cut, max_pixels)
        return _info(header, cut)


def read_slice(
    path: str | os.PathLike[str], index: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """Read one slice.

    Axial rows run to the back and columns to the left; coronal rows to the feet and columns to
    the left; sagittal rows to the feet and columns to the back. The last volumes stay in memory.

    Args:
        path: The file.
        index: 0-based: axial from feet to head, coronal from front to back, sagittal from left to
            right; None is enough for a volume of one slice.
        max_pixels: Slices with more pixels are refused.

    Returns:
        (H, W) float32, scaled as the header asks. What is no number takes the lowest finite value
        of the volume, and infinities the lowest and the highest.

    Raises:
        ImageError: The file cannot be read.
    """
    path = Path(path)
    with refusing(path, "reading the voxels"):
        status = os.stat(path)
        volume = _VOLUMES.get(path, status.st_mtime_ns, status.st_size, max_pixels)
        if index is None and len(volume) > 1:
            raise Refused(f"{len(volume)} slices in one file; name the one to read")
        if index is not None and not 0 <= index < len(volume):
            raise Refused(f"no slice {index}: the volume has {len(volume)}, counted from 0")
        return np.ascontiguousarray(volume[index or 0])


def write_like(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    maps: NDArray[np.float32],
) -> None:
    """Write maps of all slices of a volume in that volume's own voxel order and affine.

    Of the source's header only the geometry and its units are taken: its free text may name a
    patient. Where its sform and its qform contradict each other, only the sform is. The file is
    there whole or not at all.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        source: The volume that :func:`read_slice` has cut.
        maps: (N, H, W) in the order of the slices.

    Raises:
        ImageError: The source cannot be read.
        ValueError: The maps are not as many or not as large as the slices.
    """
    with refusing(source, "reading the header"), unpacked(source) as stream:
        header = read_head(stream)
        cut = cut_of(header)
    if maps.shape != cut.shape:
        raise ValueError(f"maps of shape {maps.shape} for slices of shape {cut.shape}")
    geometry = type(header)()
    geometry.set_data_shape(shape_of(header))
    geometry["pixdim"][:4] = header["pixdim"][:4]
    for field in ("qform_code", "quatern_b", "quatern_c", "quatern_d", "sform_code"):
        geometry[field] = header[field]
    for field in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        geometry[field] = header[field]
    mend_qform(geometry, cut.problems)
    geometry["xyzt_units"] = header["xyzt_units"] % 8  # of space; there is no time
    _write(Path(path), orientations.apply_orientation(maps, cut.back), geometry)


def write_volume(
    path: str | os.PathLike[str], maps: NDArray[np.float32], affine: NDArray[np.float64]
) -> None:
    """Write maps of a DICOM series, whole or not at all.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        maps: (N, H, W).
        affine: (4, 4), takes (column, row, slice, 1) to patient coordinates in mm, LPS.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(maps.shape[::-1])
    header.set_xyzt_units("mm")
    # the qform cannot be sheared, as the slices of a tilted gantry are: it would be another place
    header.set_qform(LPS @ affine, code="scanner")
    header.set_sform(LPS @ affine, code="scanner")
    apart = farthest(header.get_qform(), LPS @ affine, header.get_data_shape())
    if apart > 0.01 * np.linalg.norm(affine[:3, :3], axis=0).min():
        header["qform_code"] = 0  # it cannot hold the shear of a tilted gantry
    _write(Path(path), maps.transpose(2, 1, 0), header)


def _info(header: Header, cut: Cut) -> NiftiInfo:
    slices, height, width = cut.shape
    columns, rows = np.linalg.norm(cut.affine[:3, :2], axis=0)
    info = ImageInfo(
        width,
        height,
        1,
        8 * dtype_of(header).itemsize,
        "NIfTI",
        "NIfTI",
        plane=plane_of(np.cross(cut.affine[:3, 0], cut.affine[:3, 1])),
        spacing=(float(rows), float(columns)),
    )
    return NiftiInfo(slices, info, cut.affine, cut.problems)


class _Volumes:
    """The last volumes, oriented; readers of one volume wait for the first of them to decode it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: dict[tuple[Path, int, int], NDArray[np.float32]] = {}

    def get(self, path: Path, modified: int, size: int, max_pixels: int) -> NDArray[np.float32]:
        key = (path, modified, size)
        with self._lock:
            volume = self._kept.pop(key, None)
            if volume is None:
                volume = self._read(path, max_pixels)
            self._kept[key] = volume
            return volume

    def _read(self, path: Path, max_pixels: int) -> NDArray[np.float32]:
        with unpacked(path) as stream:
            header = read_head(stream)
            cut = cut_of(header)
            check_size(header, cut, max_pixels)
            self._make_room(4 * int(np.prod(cut.shape)))
            voxels = _voxels(stream, header)
        oriented: NDArray[np.float32] = orientations.apply_orientation(voxels, cut.there)
        return oriented

    def _make_room(self, needed: int) -> None:
        while self._kept and (
            len(self._kept) >= self._most
            or sum(volume.nbytes for volume in self._kept.values()) + needed > MAX_BYTES
        ):
            del self._kept[next(iter(self._kept))]


_VOLUMES = _Volumes(2)


def _voxels(stream: BinaryIO, header: Header) -> NDArray[np.float32]:
    """Read the voxels behind a header, scaled and finite, in the axes of the file."""
    shape, dtype = shape_of(header), dtype_of(header)
    slope, intercept = scaling_of(header)
    skipped = max(int(header["vox_offset"]), header.sizeof_hdr + 4) - header.sizeof_hdr
    if len(stream.read(skipped)) < skipped:
        raise EOFError
    voxels = np.empty(int(np.prod(shape)), np.float32)
    for start in range(0, len(voxels), _BLOCK):
        count = min(_BLOCK, len(voxels) - start)
        content = stream.read(count * dtype.itemsize)
        if len(content) < count * dtype.itemsize:
            raise EOFError
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.frombuffer(content, dtype).astype(np.float64) * slope + intercept
            voxels[start : start + count] = values
    # to the end, where gzip compares its checksum
    slice_bytes = shape[0] * shape[1] * dtype.itemsize
    if len(stream.read(slice_bytes)) == slice_bytes:
        raise Refused("more voxels in the file than its header says")
    _make_finite(voxels)
    return voxels.reshape(shape, order="F")


def _make_finite(voxels: NDArray[np.float32]) -> None:
    finite = np.isfinite(voxels)
    if finite.all():
        return
    if not finite.any():
        raise Refused("no voxel is a finite number")
    low = voxels.min(where=finite, initial=np.inf)
    high = voxels.max(where=finite, initial=-np.inf)
    np.nan_to_num(voxels, copy=False, nan=low, neginf=low, posinf=high)


def _write(path: Path, voxels: NDArray[np.float32], header: Header) -> None:
    header.set_data_dtype(np.float32)
    header["vox_offset"] = header.sizeof_hdr + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["magic"] = header.single_magic
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        packed = path.name.lower().endswith(".gz")
        # neither a name nor a time in the packed file: equal maps give equal files
        into = gzip.GzipFile("", "wb", 6, stream, 0) if packed else stream
        into.write(header.binaryblock + bytes(4))  # no extensions
        for k in range(voxels.shape[2]):
            into.write(voxels[:, :, k].astype(header.get_data_dtype()).tobytes(order="F"))
        if packed:
            into.close()
