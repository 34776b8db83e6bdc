import pytest

from scrd.data.names import (
    holds_masks,
    is_abnormal,
    is_mask_name,
    is_normal,
    split_of,
    without_mask_name,
)


@pytest.mark.parametrize(
    "name",
    [
        "OK",
        "good",
        "NORMAL",
        "no_tumor",
        "notumor",
        "No-Finding",
        "0_normal",
        "class_normal",
        "non-covid",
        "nonCOVID",
        "negative",
        "Unauffällig",
        "正常",
        "норма",
        "defect-free",
        "non_defective",
        "Normal_images",
        "healthy",
    ],
)
def test_names_of_normal_images(name: str) -> None:
    assert is_normal(name)
    assert not is_abnormal(name)


@pytest.mark.parametrize(
    "name",
    [
        "NG",
        "bad",
        "abnormal",
        "1_abnormal",
        "not_normal",
        "non-normal",
        "unhealthy",
        "viral_pneumonia",
        "Tumor",
        "nodule",
        "glioma",
        "benign",
        "COVID19",
        "异常",
    ],
)
def test_names_of_abnormal_images(name: str) -> None:
    assert is_abnormal(name)
    assert not is_normal(name)


@pytest.mark.parametrize(
    "name", ["patient7", "siteA", "0", "1", "north", "noise", "novel", "axial", "2024", "node"]
)
def test_names_that_say_nothing(name: str) -> None:
    assert not is_normal(name)
    assert not is_abnormal(name)
    assert split_of(name) is None
    assert not holds_masks(name)


def test_names_of_splits() -> None:
    assert {split_of(n) for n in ("Training", "train_set", "imagesTr", "TRAIN")} == {"train"}
    assert {split_of(n) for n in ("Testing", "test-data", "imagesTs")} == {"test"}
    assert {split_of(n) for n in ("val", "Validation", "dev")} == {"val"}


@pytest.mark.parametrize(
    "stem", ["x_mask", "x-seg", "x.mask", "x mask", "x_mask_1", "x_label", "x_gt", "X_Mask2"]
)
def test_names_of_masks(stem: str) -> None:
    assert is_mask_name(stem)
    assert without_mask_name(stem) == "x"


@pytest.mark.parametrize("stem", ["unmask", "mask", "labelled", "x_masked", "seg1", "x_1"])
def test_names_of_images(stem: str) -> None:
    assert not is_mask_name(stem)


def test_names_of_folders_of_masks() -> None:
    assert all(map(holds_masks, ("masks", "labelsTr", "ground_truth", "GT", "Annotations")))
    assert not any(map(holds_masks, ("images", "label_1", "masked", "normal")))
