import gzip
import itertools
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scrd.data.formats import nifti
from scrd.data.formats.nifti import is_nifti, read_nifti_info, read_slice, write_like, write_volume
from scrd.errors import ImageError

RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(5, 6, 7)).astype(np.float32)  # right, front, head
FLIP_XY = np.diag([-1.0, -1.0, 1.0, 1.0])
ORDERS = [
    ("RAS", "LPS", "SRP"),
    ("LIA", "PSR", "ASL"),
]


def save(path: Path, sides: tuple[float, float, float], codes: str = "RAS") -> np.ndarray:
    """Write VOLUME in some voxel order; return the affine of the RAS order."""
    affine = np.diag([*sides, 1.0])
    affine[:3, 3] = (-10, 20, 5)
    image = nib.Nifti1Image(VOLUME, affine)
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted))
    image.to_filename(path)
    return affine


def expected(plane: str) -> np.ndarray:
    """Slices of VOLUME as radiologists look at them, by plain indexing."""
    if plane == "axial":  # from the feet; rows to the back, columns to the left
        return np.stack([VOLUME[::-1, ::-1, k].T for k in range(7)])
    if plane == "coronal":  # from the front; rows to the feet, columns to the left
        return np.stack([VOLUME[::-1, j, ::-1].T for j in reversed(range(6))])
    # from the left; rows to the feet, columns to the back
    return np.stack([VOLUME[i, ::-1, ::-1].T for i in range(5)])


SIDES = {"axial": (1, 1, 3), "coronal": (1, 3, 1), "sagittal": (3, 1, 1)}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", list(itertools.chain(*ORDERS)))
@pytest.mark.parametrize("plane", SIDES)
def test_slices_lie_as_dicom_images_do(tmp_path: Path, plane: str, codes: str, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    save(path, SIDES[plane], codes)
    info = read_nifti_info(path)
    wanted = expected(plane)
    # sagittal slices run to the right, along rows x columns
    assert (info.slices, info.info.height, info.info.width) == wanted.shape
    assert (info.info.plane, info.info.format, info.info.values) == (plane, "NIfTI", "NIfTI")
    assert info.info.spacing == (1, 1)
    for index, image in enumerate(wanted):
        found = read_slice(path, index)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("plane", SIDES)
def test_the_affine_leads_every_pixel_to_its_voxel(tmp_path: Path, plane: str) -> None:
    path = tmp_path / "volume.nii"
    affine = save(path, SIDES[plane], "PSR")
    info = read_nifti_info(path)
    slices, height, width = info.slices, info.info.height, info.info.width
    for k, row, column in itertools.product(range(slices), range(height), range(width)):
        place = FLIP_XY @ info.affine @ [column, row, k, 1]  # RAS, mm
        i, j, h = np.rint(np.linalg.solve(affine, place)[:3]).astype(int)
        assert read_slice(path, k)[row, column] == VOLUME[i, j, h]
    normal = np.cross(info.affine[:3, 0], info.affine[:3, 1])
    assert normal @ info.affine[:3, 2] > 0  # slices follow the normal, as in DICOM series


def test_voxels_of_nearly_equal_sides_are_cut_axially(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    save(path, (1.19, 1, 1), "ASL")
    assert read_nifti_info(path).info.plane == "axial"
    save(path, (1.21, 1, 1), "ASL")
    assert read_nifti_info(path).info.plane == "sagittal"


def test_spacing_is_between_rows_then_columns_in_mm(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    image = nib.Nifti1Image(VOLUME, np.diag([0.001, 0.002, 0.009, 1]))
    image.header.set_xyzt_units("meter")
    image.to_filename(path)
    assert read_nifti_info(path).info.spacing == pytest.approx((2, 1))


def test_an_oblique_volume_says_so(tmp_path: Path) -> None:
    turn = np.deg2rad(40)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, 2] *= 4
    nib.Nifti1Image(VOLUME, affine).to_filename(tmp_path / "volume.nii")
    assert read_nifti_info(tmp_path / "volume.nii").info.plane == "oblique"


@pytest.mark.parametrize("codes", list(itertools.chain(*ORDERS)))
@pytest.mark.parametrize("plane", SIDES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_maps_go_back_to_their_voxels(tmp_path: Path, plane: str, codes: str, suffix: str) -> None:
    source, written = tmp_path / f"volume{suffix}", tmp_path / f"map{suffix}"
    save(source, SIDES[plane], codes)
    count = read_nifti_info(source).slices
    write_like(written, source, np.stack([read_slice(source, k) for k in range(count)]))
    before, after = nib.load(source), nib.load(written)
    assert after.get_data_dtype() == np.float32
    np.testing.assert_array_equal(after.get_fdata(), before.get_fdata())
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.header.get_xyzt_units()[0] == before.header.get_xyzt_units()[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, written.name])


def test_a_written_map_keeps_both_forms_and_drops_free_text(tmp_path: Path) -> None:
    source, written = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    image = nib.Nifti1Image(VOLUME[..., None], None)
    image.set_qform(np.diag([2, 2, 2, 1]), code="scanner")
    image.set_sform(np.diag([2, 2, 2.5, 1]), code="mni")
    image.header["descrip"] = b"Doe^Jane"
    image.to_filename(source)
    maps = np.full(read_nifti_info(source).slices, np.nan, np.float32)[:, None, None]
    write_like(written, source, np.broadcast_to(maps, (7, 6, 5)))
    header = nib.load(written).header
    np.testing.assert_allclose(header.get_qform(), np.diag([2, 2, 2, 1]), atol=1e-6)
    np.testing.assert_array_equal(header.get_sform(), np.diag([2, 2, 2.5, 1]))
    assert (header["qform_code"], header["sform_code"]) == (1, 4)
    assert b"Doe" not in gzip.decompress(written.read_bytes())
    assert np.isnan(nib.load(written).get_fdata()).all()


def test_maps_of_another_shape_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "volume.nii", (1, 1, 1))
    with pytest.raises(ValueError, match="shape"):
        write_like(tmp_path / "map.nii", tmp_path / "volume.nii", np.zeros((7, 5, 6), np.float32))
    assert not (tmp_path / "map.nii").exists()


def test_a_dicom_series_becomes_a_volume(tmp_path: Path) -> None:
    affine = np.array([[0, 2, 0, 5], [3, 0, 0, 6], [0, 0, -4, 7], [0, 0, 0, 1]], np.float64)
    maps = RNG.random((4, 3, 2), dtype=np.float32)
    write_volume(tmp_path / "map.nii.gz", maps, affine)
    image = nib.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(), maps.transpose(2, 1, 0))
    np.testing.assert_allclose(FLIP_XY @ image.affine, affine)
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_scaling_is_that_of_nibabel(tmp_path: Path, dtype: type, byteorder: str) -> None:
    path = tmp_path / "volume.nii"
    header = nib.Nifti1Header(endianness=byteorder)
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(np.arange(60).reshape(3, 4, 5).astype(dtype), np.eye(4), header)
    image.header.set_slope_inter(0.5, -7)
    image.to_filename(path)
    wanted = np.stack([nib.load(path).get_fdata()[::-1, ::-1, k].T for k in range(5)])
    found = np.stack([read_slice(path, k) for k in range(5)])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_is_no_number_becomes_the_lowest_that_is(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    voxels = np.arange(1, 9, dtype=np.float32).reshape(2, 2, 2)
    voxels[0, 0, 0], voxels[0, 0, 1], voxels[1, 1, 1] = np.nan, -np.inf, np.inf
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    found = np.stack([read_slice(path, k) for k in range(2)])
    np.testing.assert_array_equal(np.sort(found.ravel()), [3, 3, 3, 4, 5, 6, 7, 7])


def test_nifti_2_and_files_without_suffix_are_read(tmp_path: Path) -> None:
    nib.Nifti2Image(VOLUME, np.eye(4)).to_filename(tmp_path / "volume.nii")
    path = (tmp_path / "volume.nii").rename(tmp_path / "volume")
    with open(path, "rb") as stream:
        assert is_nifti(stream)
    np.testing.assert_array_equal(read_slice(path, 2), expected("axial")[2])


def patched(offset: int, content: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + content + data[offset + len(content) :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (patched(344, b"ni1\0"), "two files"),
        (patched(40, struct.pack("<8h", 4, 5, 6, 7, 2, 1, 1, 1)), "its shape is 5x6x7x2"),
        (patched(40, struct.pack("<8h", 2, 5, 6, 1, 1, 1, 1, 1)), "its shape is 5x6"),
        (patched(40, struct.pack("<8h", 3, 5, -6, 7, 1, 1, 1, 1)), "its shape is 5x-6x7"),
        (patched(40, struct.pack("<8h", 3, 32000, 32000, 9, 1, 1, 1, 1)), "pixels in a slice"),
        (patched(40, struct.pack("<8h", 3, 9000, 9000, 9, 1, 1, 1, 1)), "more than 1 GiB"),
        (patched(70, struct.pack("<2h", 128, 24)), "colours"),
        (patched(70, struct.pack("<2h", 32, 64)), "colours or complex"),
        (patched(108, struct.pack("<f", np.nan)), "voxels do not begin"),
        (patched(280, bytes(16)), "on top of each other"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:300], "truncated"),
        (lambda data: data[:352] + np.full(210, np.nan, "<f4").tobytes(), "finite"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_read_is_refused_by_reason(
    tmp_path: Path, change: Callable[[bytes], bytes], reason: str, packed: bool
) -> None:
    path = tmp_path / "volume.nii"
    save(path, (1, 1, 1))
    content = change(path.read_bytes())
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ImageError, match=reason):
        read_slice(path, 0, max_pixels=100_000_000)


def test_slices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    save(path, (1, 1, 1))
    for index, reason in ((None, "7 slices in one file"), (7, "no slice 7"), (-1, "no slice -1")):
        with pytest.raises(ImageError, match=reason):
            read_slice(path, index)
    with pytest.raises(ImageError, match="no such file"):
        read_slice(tmp_path / "none.nii", 0)


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b", b"\x1f\x8b" * 300, gzip.compress(b"x" * 999, mtime=0)]
)
def test_other_files_are_no_nifti(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with open(path, "rb") as stream:
        assert not is_nifti(stream)
    with pytest.raises(ImageError):
        read_slice(path, 0)


def test_readers_of_one_volume_decode_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "volume.nii.gz"
    save(path, (1, 1, 1))
    decoded = []
    original = nifti._voxels

    def counted(*arguments: object) -> np.ndarray:
        decoded.append(1)
        return original(*arguments)

    monkeypatch.setattr(nifti, "_voxels", counted)
    threads = [threading.Thread(target=read_slice, args=(path, k)) for k in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 1


def test_a_volume_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    save(path, (1, 1, 1))
    before = read_slice(path, 0)
    nib.Nifti1Image(np.ones((5, 6, 8), np.float32), np.eye(4)).to_filename(path)
    assert before.std() > 0
    assert read_slice(path, 0).std() == 0


def test_a_slice_can_be_changed_without_changing_the_volume(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    save(path, (1, 1, 1))
    read_slice(path, 0)[:] = 0
    np.testing.assert_array_equal(read_slice(path, 0), expected("axial")[0])
