"""Headers that contradict themselves: read right, refused in words, or read with a problem."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scrd.data.formats.nifti import read_nifti_info, read_slice, write_like, write_volume
from scrd.data.reading import read_image, read_info
from scrd.data.series import list_sources
from scrd.data.source import Source
from scrd.errors import ImageError

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 1000, (20, 24, 18)).astype(np.int16)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SIDES = np.diag([1.0, 1.0, 5.0, 1.0])


def write(path: Path, voxels: np.ndarray = VOLUME, **fields: object) -> Path:
    """A header with both forms, some fields set to what nibabel would not write."""
    header = nib.Nifti1Header(endianness=str(fields.pop("order", "<")))
    header.set_data_dtype(fields.pop("dtype", voxels.dtype))
    header.set_data_shape(voxels.shape)
    header.set_xyzt_units("mm")
    header.set_qform(SIDES, 1)
    header.set_sform(SIDES, 1)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    header["magic"] = b"n+1"
    for name, value in fields.items():
        header[name] = value
    stored = voxels.astype(voxels.dtype.newbyteorder(header.endianness))
    path.write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    return path


def problems(path: Path) -> tuple[str, ...]:
    """As a user meets them: those of the listed series."""
    listing = list_sources([path])
    assert not listing.failures
    return listing.sources[0].series.problems


def sheared(degrees: float) -> np.ndarray:
    affine = SIDES.copy()
    affine[1, 2] = 5 * np.tan(np.deg2rad(degrees))
    return affine


def pixdim(*values: float) -> list[float]:
    return [1.0, *values, 1, 1, 1, 1]


NO_FORM = {"sform_code": 0, "qform_code": 0}
ONLY_Q = {"sform_code": 0}
ONLY_S = {"qform_code": 0}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"order": ">"},
        {"scl_slope": 0, "scl_inter": np.nan},
        {"scl_slope": np.nan, "scl_inter": np.nan},
        {"quatern_d": 1e-4, **ONLY_Q},
        {"quatern_d": np.nan, **ONLY_S},
        {"pixdim": pixdim(0, 0, 0), **ONLY_S},
        {"pixdim": pixdim(np.nan, 1, 5), **ONLY_S},
        {"pixdim": [0, 1, 1, 5, 1, 1, 1, 1], **ONLY_Q},  # 0 means right-handed
        {"bitpix": 8},
        {"xyzt_units": 0},
        {"dim": [5, 20, 24, 18, 1, 1, 1, 1]},
    ],
)
def test_odd_headers_with_one_meaning_are_read_like_the_plain_one(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    plain, odd = write(tmp_path / "plain.nii"), write(tmp_path / "odd.nii", **fields)
    assert problems(odd) == ()
    found, wanted = read_nifti_info(odd), read_nifti_info(plain)
    np.testing.assert_allclose(found.affine, wanted.affine, atol=0.01)
    assert found.info == wanted.info
    for k in (0, 17):
        np.testing.assert_array_equal(read_slice(odd, k), read_slice(plain, k))


def test_a_half_turn_whose_quaternion_is_rounded_up_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", quatern_d=1.00001, **ONLY_Q)
    np.testing.assert_allclose(
        LPS @ read_nifti_info(path).affine[:, [0, 1, 2, 3]],
        [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]],
        atol=1e-6,
    )
    write_like(tmp_path / "map.nii", path, np.zeros((18, 24, 20), np.float32))
    np.testing.assert_allclose(
        nib.load(tmp_path / "map.nii").affine, np.diag([-1, -1, 5, 1]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scl_inter": np.nan}, "intercept of nan: not finite"),
        ({"scl_slope": np.inf}, "slope of inf"),
        ({"datatype": 3}, "unknown type of voxels"),
        ({"datatype": 0}, "unknown type of voxels"),
        ({"datatype": 32}, "complex"),
        ({"datatype": 2304}, "colours"),
        ({"quatern_b": 2, **ONLY_Q}, "no rotation"),
        ({"quatern_b": np.nan, **ONLY_Q}, "no rotation"),
        ({"pixdim": pixdim(0, 1, 5), **ONLY_Q}, r"pixdim\) of 0x1x5 mm"),
        ({"pixdim": pixdim(1, np.nan, 5), **NO_FORM}, "1xnanx5 mm"),
        ({"pixdim": pixdim(1, np.inf, 5), **NO_FORM}, "1xinfx5 mm"),
        ({"pixdim": pixdim(-1, 1, 5), **ONLY_Q}, "no lengths"),
        ({"qoffset_x": np.nan, **ONLY_Q}, "qform is an affine of values that are not finite"),
        ({"srow_x": np.nan}, "sform is an affine of values that are not finite"),
        ({"srow_x": 0}, "sform is an affine that places voxels on top of each other"),
        ({"srow_x": [1, 3, 0, 0]}, "on top of each other, or nearly so"),
        ({"dim": [3, 20, 24, 9, 1, 1, 1, 1]}, "more voxels in the file than its header says"),
        ({"dim": [3, 20, 24, 19, 1, 1, 1, 1]}, "truncated"),
        ({"dim": [0, 20, 24, 18, 1, 1, 1, 1]}, "not one volume"),
        ({"dim": [4, 20, 24, 9, 2, 1, 1, 1]}, "its shape is 20x24x9x2"),
        ({"dim": [3, 8640, 1, 1, 1, 1, 1, 1]}, "a line of voxels"),
        ({"vox_offset": 700}, "truncated"),
    ],
)
def test_headers_without_a_meaning_are_refused_in_words(
    tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    path = write(tmp_path / "odd.nii", **fields)
    with pytest.raises(ImageError, match=reason) as caught:
        read_info(path)
        read_image(Source(path, 0))
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (NO_FORM, "does not say how it lies"),
        ({"srow_x": [-1, 0, 0, 0]}, "along different axes"),
        ({"srow_x": [-1, 0, 0, 0], "sform_code": 4}, "along different axes"),
        ({"srow_x": [1, 0, 0, 80]}, "up to 80.0 mm apart"),
        ({"srow_y": sheared(15)[1]}, "apart"),  # the qform cannot be sheared
        ({"quatern_b": 2}, "no rotation; its sform is used"),
        ({"pixdim": pixdim(1, 1, 1), **ONLY_S}, "voxels of 1x1x5 mm, its pixdim of 1x1x1"),
        ({"srow_z": [0, 0, 1, 0], "sform_code": 2}, "voxels of 1x1x1 mm, its pixdim of 1x1x5"),
        ({"srow_z": [0, 0, 1, 0], "sform_code": 4}, "voxels of 1x1x1 mm, its pixdim of 1x1x5"),
        ({"srow_x": [1, 0.3, 0, 0], **ONLY_S}, "17 degrees off the right angle"),
        ({"srow_y": sheared(50)[1], "sform_code": 3, **ONLY_S}, "50 degrees off"),
        ({"xyzt_units": 1}, "is the unit wrong"),
    ],
)
def test_headers_with_two_meanings_are_named(
    tmp_path: Path, fields: dict[str, object], problem: str
) -> None:
    path = write(tmp_path / "odd.nii", **fields)
    found = problems(path)
    assert len(found) == 1
    assert problem in found[0]
    # the map has one geometry: that by which the volume was read
    slices, height, width = (read_nifti_info(path).slices, 24, 20)
    write_like(tmp_path / "map.nii", path, np.zeros((slices, height, width), np.float32))
    header = nib.load(tmp_path / "map.nii").header
    assert not (header["sform_code"] and header["qform_code"]) or "unit" in problem


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [0.8, 0, 0, -3], "srow_z": [0, 0, 6.2, 9], "sform_code": 4},  # to a template
        {"srow_x": [1, 0.02, 0, -3], "sform_code": 2},  # to another scan
        {"srow_x": [1, 0, 0, 0.2]},
        {"srow_y": sheared(15)[1], **ONLY_S},  # a tilted gantry
        {"srow_y": sheared(30)[1], **ONLY_S},
    ],
)
def test_sound_headers_are_not_doubted(tmp_path: Path, fields: dict[str, object]) -> None:
    assert problems(write(tmp_path / "a.nii", **fields)) == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness", [1, 3])
@pytest.mark.parametrize("longest", [None, 0, 1, 2])
def test_a_slice_is_one_image(
    tmp_path: Path, axis: int, thickness: int, longest: int | None
) -> None:
    voxels = np.moveaxis(RNG.random((40, 32, thickness), np.float32), 2, axis)
    sides = np.ones(4)
    if longest is not None:
        sides[longest] = 6
    path = tmp_path / "slice.nii.gz"
    nib.Nifti1Image(voxels, np.diag(sides)).to_filename(path)
    found = list_sources([path]).sources
    assert len(found) == thickness
    assert read_info(found[0]).plane == ("sagittal", "coronal", "axial")[axis]
    wanted = np.sort(np.take(voxels, 0, axis).ravel())
    images = [np.sort(read_image(source).ravel()) for source in found]
    assert any(np.array_equal(image, wanted) for image in images)


def test_damaged_content_is_refused_in_words(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(write(tmp_path / "a.nii").read_bytes()))
    path = tmp_path / "a.nii.gz"
    cases = {"truncated": packed[:-100], "is damaged": bytearray(packed)}
    cases["is damaged"][-6] ^= 255  # of the checksum
    for reason, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(ImageError, match=reason):
            read_slice(path, 0)
    packed[len(packed) // 2] ^= 255
    path.write_bytes(packed)
    with pytest.raises(ImageError, match="damaged|truncated"):
        read_slice(path, 0)


def test_the_limit_of_pixels_holds_for_headers_too(tmp_path: Path) -> None:
    source = Source(write(tmp_path / "a.nii"), 0)
    assert read_info(source, max_pixels=480).width == 20
    with pytest.raises(ImageError, match="more than 479 pixels"):
        read_info(source, max_pixels=479)


def test_the_volume_of_a_tilted_gantry_has_one_geometry(tmp_path: Path) -> None:
    maps = RNG.random((4, 6, 5), np.float32)
    turn = np.deg2rad(15)
    affine = np.eye(4)
    affine[:3, 1] = [0, np.cos(turn), np.sin(turn)]
    affine[:3, 2] = [0, 0, 5]
    write_volume(tmp_path / "a.nii", maps, affine)
    header = nib.load(tmp_path / "a.nii").header
    np.testing.assert_allclose(header.get_sform(), LPS @ affine, atol=1e-6)
    assert (header["qform_code"], header["sform_code"]) == (0, 1)
    np.testing.assert_allclose(header.get_zooms(), (1, 1, 5))
    affine[:3, 2] = 5 * np.cross(affine[:3, 0], affine[:3, 1])
    write_volume(tmp_path / "a.nii", maps, affine)
    header = nib.load(tmp_path / "a.nii").header
    np.testing.assert_allclose(header.get_qform(), LPS @ affine, atol=1e-5)
    assert (header["qform_code"], header["sform_code"]) == (1, 1)
