"""Folders as people have them: understood, refused, or read with a word of doubt."""

from pathlib import Path

import pytest

from scrd.data.manifest import Manifest, read_manifest
from scrd.errors import ManifestError


def images(root: Path, *folders: str, each: int = 2) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            (root / folder / f"{number}.png").touch()


def understood(root: Path) -> dict[str, tuple[str, int]]:
    """Folder → split and label of its images."""
    return {Path(r.name).parent.as_posix(): (r.split, r.label) for r in read_manifest(root).records}


@pytest.mark.parametrize(
    ("train", "test", "normal", "abnormal"),
    [
        ("Training", "Testing", "notumor", "glioma"),
        ("TRAIN", "Test", "NORMAL", "PNEUMONIA"),
        ("train", "test", "good", "crack"),
        ("train_set", "test_set", "Gesund", "krank"),
        ("train", "test", "0", "1"),
        ("train", "test", "no", "yes"),
    ],
)
def test_spellings_of_splits_and_classes(
    tmp_path: Path, train: str, test: str, normal: str, abnormal: str
) -> None:
    images(tmp_path, *(f"{s}/{kind}" for s in (train, test) for kind in (normal, abnormal)))
    assert understood(tmp_path) == {
        f"{train}/{normal}": ("train", 0),
        f"{train}/{abnormal}": ("train", 1),
        f"{test}/{normal}": ("test", 0),
        f"{test}/{abnormal}": ("test", 1),
    }


def test_the_normals_of_test_may_have_another_name(tmp_path: Path) -> None:
    images(tmp_path, "train/normal", "test/good", "test/hole")
    assert understood(tmp_path)["test/good"] == ("test", 0)
    assert "2 normal (2 good)" in read_manifest(tmp_path).counts


def test_a_test_split_whose_normals_have_an_unknown_name_is_doubted(tmp_path: Path) -> None:
    images(tmp_path, "train/normal", "test/wellformed", "test/hole")
    [note] = read_manifest(tmp_path).notes
    assert "all of it counts as abnormal: hole (2 images), wellformed (2 images)" in note


def test_folders_that_hold_nothing_but_the_data_set_are_passed(tmp_path: Path) -> None:
    images(tmp_path, "set/set/train/normal", "set/set/train/ill", "set/set/test/normal")
    (tmp_path / "__MACOSX" / "set").mkdir(parents=True)
    assert understood(tmp_path)["set/set/train/ill"] == ("train", 1)


def test_classes_without_splits_are_told(tmp_path: Path) -> None:
    images(tmp_path, "OK", "NG")
    manifest = read_manifest(tmp_path, for_training=True)
    assert [r.name for r in manifest.train_normals] == ["OK/0.png", "OK/1.png"]
    assert "NG (2 images)" in manifest.notes[0]
    assert "2 abnormal (2 NG, not trained on)" in manifest.counts


def test_a_folder_called_test_holds_the_test_split(tmp_path: Path) -> None:
    images(tmp_path, "test/normal", "test/crack")
    assert understood(tmp_path / "test") == {"normal": ("test", 0), "crack": ("test", 1)}
    with pytest.raises(ManifestError, match="the folder is called 'test'"):
        read_manifest(tmp_path / "test", for_training=True)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train/normal", "Train/normal", "test/normal"), ("Train (2 images)", "train (2 images)")),
        (("train/normal", "train/Normal"), ("train/Normal (2 images)", "which of them is normal")),
        (("train/normal", "test/normal", "test/good"), ("test/good (2 images)", "test/normal")),
        (("OK", "ok"), ("OK (2 images)", "ok (2 images)")),
        (("NG",), ("NG (2 images)", "split.csv")),
        (("0", "1", "2"), ("0 (2 images)", "2 (2 images)")),
        (("val/normal", "val/ill"), ("val (4 images)",)),
        (("a/normal", "a/abnormal", "b/normal"), ("a/abnormal (2 images)",)),
        (("a/train/good", "a/test/good", "b/train/good"), ("a/test (2 images)", "b/train")),
        (("train/naevus", "test/naevus"), ("no folder 'normal', but naevus (2 images)",)),
        (("train", "test/good"), ("train/0.png is in no class folder, and 2 images",)),
        (("train/normal/masks",), ("all 2 images look like masks",)),
    ],
)
def test_what_can_mean_two_things_is_refused_with_counts(
    tmp_path: Path, folders: tuple[str, ...], words: tuple[str, ...]
) -> None:
    images(tmp_path, *folders)
    if len(list(tmp_path.rglob("0.png"))) < len(folders):
        pytest.skip("this file system folds case")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path)
    for word in words:
        assert word in caught.value.reason


def test_folders_without_a_meaning_stay_normal_and_in_peace(tmp_path: Path) -> None:
    images(tmp_path, "patient 1/T1", "patient 2/T1", "healthy", each=1)
    (tmp_path / "healthy" / "0.png").unlink()
    manifest = read_manifest(tmp_path)
    assert {(r.label, r.split) for r in manifest.records} == {(0, "train")}
    assert manifest.notes == ()


def test_folders_beside_the_splits_and_odd_names_are_told(tmp_path: Path) -> None:
    images(tmp_path, "train/normal/pneumonia", "test/normal", "test/Crack", "val/normal", each=1)
    images(tmp_path, "test/crack", each=1)
    (tmp_path / "loose.png").touch()
    (tmp_path / "test" / "good").mkdir()
    notes = " | ".join(read_manifest(tmp_path).notes)
    for word in (
        "no folder (1 images), val (1 images)",
        "train/normal/pneumonia (1 images)",
        "Crack (1 images), crack (1 images)",
        "test/good holds no image",
    ):
        assert word in notes


def test_a_table_deeper_down_is_not_passed_by(tmp_path: Path) -> None:
    images(tmp_path, "set")
    (tmp_path / "set" / "split.csv").touch()
    with pytest.raises(ManifestError, match=r"a split.csv lies in set/"):
        read_manifest(tmp_path)


def test_files_named_like_abnormal_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "abnormal_1.png").touch()
    (tmp_path / "normal_1.png").touch()
    assert "abnormal_1.png" in read_manifest(tmp_path).notes[0]


def test_notes_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path, "OK", "NG")
    read_manifest(tmp_path)
    assert "NG (2 images)" in caplog.text


def test_counts_shorten_long_lists(tmp_path: Path) -> None:
    images(tmp_path, "train/normal", *(f"test/kind{n}" for n in range(15)), each=1)
    manifest: Manifest = read_manifest(tmp_path)
    assert manifest.counts.startswith("train: 1 normal (1 normal); test: 15 abnormal (")
    assert manifest.counts.endswith("and 3 more classes)")
