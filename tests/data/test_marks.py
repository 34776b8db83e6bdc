from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scrd.data.marks import box_mask, mark
from scrd.data.record import Record
from scrd.data.series import list_sources
from scrd.errors import ImageError
from synthetic_volumes import COLUMNS, ROWS, SLICES, SPACING, head, write_dicom, write_nifti

SIZE = (ROWS, COLUMNS)
LESION = np.zeros((SLICES, ROWS, COLUMNS), np.float32)
LESION[3:6, 10:20, 5:30] = 1


def records(path, mask, label=1):
    """Of all images of a volume or a series."""
    return [
        Record(s.path, s.path.name, label, "x", "test", mask=mask, frame=s.frame, series=s.series)
        for s in list_sources([path]).sources
    ]


@pytest.fixture(params=["nifti", "dicom"])
def volume(request, tmp_path):
    if request.param == "nifti":
        write_nifti(tmp_path / "head.nii.gz", head(0))
        return tmp_path / "head.nii.gz"
    write_dicom(tmp_path / "head", head(0), 0)
    return tmp_path / "head"


def reordered(path, codes):
    image = nib.load(path)
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    image = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
    )
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), path)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP", "ALI"])
def test_a_volume_of_masks_is_laid_on_its_image(volume, tmp_path, codes):
    mask = tmp_path / "mask.nii.gz"
    write_nifti(mask, LESION)
    reordered(mask, codes)
    found = [mark(record, SIZE) for record in records(volume, mask)]
    np.testing.assert_array_equal([m.pixels for m in found], LESION > 0)
    assert not any(m.doubts for m in found)


def with_affine(path, change):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), change(image.affine.copy())), path)


def shifted(affine):
    affine[:3, 3] += (0, 3, 0)
    return affine


def turned(affine):
    turn = np.deg2rad(10)
    affine[:2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] @ affine[:2]
    return affine


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda affine: np.eye(4), "other voxels than its image"),
        (lambda affine: np.diag([*SPACING, 1]), "elsewhere in the patient"),
        (shifted, "elsewhere in the patient"),
        (turned, "elsewhere in the patient"),
        (lambda affine: affine @ np.diag([1, 1, 2, 1]), "other voxels"),
        (lambda affine: affine @ np.diag([-1, 1, 1, 1]), "elsewhere in the patient"),
    ],
)
def test_a_mask_of_another_geometry_is_refused(volume, tmp_path, change, reason):
    mask = tmp_path / "mask.nii.gz"
    write_nifti(mask, LESION)
    with_affine(mask, change)
    for record in records(volume, mask):
        with pytest.raises(ImageError, match=reason) as caught:
            mark(record, SIZE)
        assert caught.value.path == mask


def test_a_mask_that_is_placed_to_a_fraction_of_a_voxel_is_right(volume, tmp_path):
    mask = tmp_path / "mask.nii.gz"
    write_nifti(mask, LESION)
    with_affine(mask, lambda affine: affine + 0.01 * np.eye(4, k=3))
    found = [mark(record, SIZE).pixels for record in records(volume, mask)]
    np.testing.assert_array_equal(found, LESION > 0)


def test_a_mask_of_fewer_slices_says_nothing_of_the_others(tmp_path):
    write_nifti(tmp_path / "head.nii.gz", head(0))
    write_nifti(tmp_path / "mask.nii.gz", LESION[:5])
    own = records(tmp_path / "head.nii.gz", tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mark(own[4], SIZE).pixels, LESION[4] > 0)
    with pytest.raises(ImageError, match="a part of it only"):
        mark(own[5], SIZE)


def test_one_picture_is_no_mask_of_a_volume(tmp_path):
    write_nifti(tmp_path / "head.nii.gz", head(0))
    mask = picture(tmp_path, LESION[4])
    with pytest.raises(ImageError, match="one picture, and its file holds 8 images"):
        mark(records(tmp_path / "head.nii.gz", mask)[4], SIZE)


def test_a_volume_is_no_mask_of_an_image_without_a_place(tmp_path):
    write_nifti(tmp_path / "mask.nii.gz", LESION)
    image = picture(tmp_path, LESION[0] + 3)
    with pytest.raises(ImageError, match="not known where its image does"):
        mark(Record(image, "x", 1, "x", "test", mask=tmp_path / "mask.nii.gz"), SIZE)


def test_a_dicom_mask_of_another_place_is_refused(tmp_path):
    write_dicom(tmp_path / "head", head(0), 0)
    write_dicom(tmp_path / "mask", LESION, 1)
    images, masks = records(tmp_path / "head", None), records(tmp_path / "mask", None)
    same = replace(images[4], mask=masks[4].path)
    np.testing.assert_array_equal(mark(same, SIZE).pixels, LESION[4] > 0)
    with pytest.raises(ImageError, match="elsewhere in the patient"):
        mark(replace(images[4], mask=masks[5].path), SIZE)


def picture(folder, pixels):
    path = folder / "mask.png"
    Image.fromarray((pixels * 255).astype(np.uint8)).save(path)
    return path


def record(mask=None, label=1, boxes=()):
    return Record(Path("image.png"), "image.png", label, "x", "test", mask=mask, boxes=boxes)


def test_masks_that_say_other_than_the_label_are_refused(tmp_path):
    empty = record(picture(tmp_path, LESION[0]))
    with pytest.raises(ImageError, match="marks nothing, and its image is abnormal"):
        mark(empty, SIZE)
    assert not mark(replace(empty, label=0), SIZE).pixels.any()
    full = record(picture(tmp_path, LESION[4]), label=0)
    with pytest.raises(ImageError, match="labelled normal"):
        mark(full, SIZE)
    with pytest.raises(ImageError, match="the mask is 48x40, its image 40x48"):
        mark(full, SIZE[::-1])


@pytest.mark.parametrize(
    ("pixels", "doubt"),
    [
        (1 - LESION[4], "is it inverted"),
        (LESION[4] * 0 + 1, "marks every pixel"),
        (LESION[4], None),
    ],
)
def test_masks_that_may_be_inverted_are_doubted(tmp_path, pixels, doubt):
    found = mark(record(picture(tmp_path, pixels)), SIZE)
    np.testing.assert_array_equal(found.pixels, pixels > 0)
    assert [doubt in d.reason for d in found.doubts] == ([True] if doubt else [])
    assert all(d.path.name == "mask.png" for d in found.doubts)


@pytest.mark.parametrize(
    ("box", "doubted"),
    [
        ((2.0, 3.0, 9.0, 12.0), False),
        ((0.0, 0.0, 48.0, 40.0), False),
        ((-0.5, 3.0, 48.7, 12.0), False),  # rounded
        ((20.0, 3.0, 90.0, 12.0), True),
        ((20.0, 3.0, 30.0, 42.0), True),
        ((-9.0, 3.0, 30.0, 12.0), True),
    ],
)
def test_boxes_that_leave_the_image_are_doubted(box, doubted):
    found = mark(record(boxes=(box,)), SIZE)
    assert found.pixels.any()
    assert ["beyond the image" in d.reason for d in found.doubts] == [True] * doubted


def test_box_mask_takes_edges():
    mask = box_mask((6, 8), 2, 1, 5, 3)
    assert mask.shape == (6, 8)
    assert mask.sum() == 3 * 2
    assert mask[1:3, 2:5].all()
    # a pixel belongs to the box when its centre does
    assert box_mask((6, 8), 2.4, 1.6, 4.6, 3.0).nonzero()[1].tolist() == [2, 3, 4]
    assert box_mask((6, 8), 2.4, 1.6, 4.6, 3.0).nonzero()[0].tolist() == [2, 2, 2]
    assert box_mask((6, 8), -5, -5, 100, 100).all()


@pytest.mark.parametrize("box", [(9, 0, 12, 3), (3, 2, 3, 4), (5, 1, 2, 3), (-4, 0, -1, 3)])
def test_box_without_pixels_is_refused(box):
    with pytest.raises(ValueError, match="holds no pixel of an image 8 wide and 6 high"):
        box_mask((6, 8), *box)
