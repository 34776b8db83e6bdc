from pathlib import Path

import pytest

from scrd.data.manifest import read_manifest


def files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    "mask",
    [
        "masks/crack/0.png",
        "masks/Crack/0.PNG",
        "Masks/crack/0_mask.tif",
        "ground_truth/crack/0_mask.png",
        "labels/test/crack/0.jpg",
        "test/crack/0_mask.png",
        "test/crack/masks/0.png",
        "test/masks/crack/0-label.png",
    ],
)
def test_a_mask_is_found_by_class_and_name(tmp_path: Path, mask: str) -> None:
    files(tmp_path, "train/normal/0.png", "test/normal/0.png", "test/crack/0.png", mask)
    manifest = read_manifest(tmp_path)
    assert [r.name for r in manifest.records] == [
        "train/normal/0.png",
        "test/crack/0.png",
        "test/normal/0.png",
    ]
    assert [r.mask for r in manifest.test] == [tmp_path / mask, None]


def test_masks_and_images_that_find_no_partner_are_named(tmp_path: Path) -> None:
    files(
        tmp_path,
        *("train/normal/0.png", "test/normal/9.png"),
        *(f"test/crack/{n}.png" for n in range(3)),
        *("masks/crack/0.png", "masks/crack/1.png", "masks/crack/1_mask.tif", "masks/hole/7.png"),
    )
    manifest = read_manifest(tmp_path)
    assert sum(r.mask is not None for r in manifest.test) == 1
    notes = " | ".join(manifest.notes)
    assert "1 masks fit no image: masks/hole/7.png" in notes
    assert "1 images have several masks, and none is used: test/crack/1.png" in notes
    assert "1 abnormal test images have no mask: test/crack/2.png" in notes


def test_masks_among_training_images_are_left_out_with_a_word(tmp_path: Path) -> None:
    files(tmp_path, "normal (1).png", "normal (1)_mask.png", "a/labels/x.nii.gz", "a/x_seg.nii.gz")
    manifest = read_manifest(tmp_path)
    assert [r.name for r in manifest.records] == ["normal (1).png"]
    assert "3 files look like masks" in manifest.notes[0]
    assert "normal (1)_mask.png" in manifest.notes[0]


def test_images_and_labels_of_a_segmentation_set_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "imagesTr/case_0.nii.gz", "labelsTr/case_0.nii.gz")
    with pytest.raises(Exception, match="imagesTr/case_0.nii.gz is in no class folder"):
        read_manifest(tmp_path)
