import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scrd.data.manifest import read_manifest
from scrd.datasets.isic2018 import COUNTS, prepare_isic2018
from scrd.datasets.published import SourceError

KINDS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
TRAIN = ["NV"] * 8 + ["MEL", "DF"]
TEST = ["NV"] * 3 + ["MEL", "BCC", "AKIEC", "BKL", "DF", "VASC"]
SMALL = {"train": 8, "test_normal": 3, "test_abnormal": 6}
GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def source(tmp_path: Path, picture: Callable[[int], np.ndarray]) -> Path:
    """10 training images, two of each lesion, and 9 test images."""
    root = tmp_path / "isic"
    number = 0
    for part, kinds in (("Training", TRAIN), ("Test", TEST)):
        stem = f"ISIC2018_Task3_{part}"
        (root / f"{stem}_Input").mkdir(parents=True)
        rows = [["image", *KINDS]]
        for kind in kinds:
            name = f"ISIC_{number:07d}"
            grey = Image.fromarray(picture(number))
            grey.convert("RGB").save(root / f"{stem}_Input" / f"{name}.jpg")
            rows.append([name, *("1.0" if kind == column else "0.0" for column in KINDS)])
            number += 1
        write_table(root / f"{stem}_GroundTruth" / f"{stem}_GroundTruth.csv", rows)
    lesions = [["image", "lesion_id", "diagnosis_confirm_type"]]
    lesions += [[f"ISIC_{k:07d}", f"HAM_{k // 2}", "histopathology"] for k in range(len(TRAIN))]
    write_table(root / GROUPINGS, lesions)
    return root


def test_the_counts_are_those_of_the_paper() -> None:
    assert COUNTS == {"train": 6705, "test_normal": 909, "test_abnormal": 603}


def test_the_official_splits_are_kept(source: Path, tmp_path: Path) -> None:
    prepare_isic2018(source, tmp_path / "out", counts=SMALL)
    records = read_manifest(tmp_path / "out").records
    assert Counter((r.split, r.kind, r.label) for r in records) == {
        ("train", "nv", 0): 8,
        ("test", "nv", 0): 3,
        **{("test", kind.lower(), 1): 1 for kind in KINDS if kind != "NV"},
    }
    for record in records:
        folder = {"train": "Training", "test": "Test"}[record.split]
        assert record.path.resolve().parent == source / f"ISIC2018_Task3_{folder}_Input"
        known = ("HAM_", "histopathology") if record.split == "train" else ("", "")
        assert record.attributes["lesion"].startswith(known[0])
        assert record.attributes["dx_type"] == known[1]


def test_images_of_one_lesion_are_one_group(source: Path, tmp_path: Path) -> None:
    prepared = prepare_isic2018(source, tmp_path / "out", counts=SMALL)
    train = read_manifest(tmp_path / "out").train_normals
    pairs = {(r.attributes["lesion"], r.group) for r in train}
    assert len(pairs) == 4 == len({group for _, group in pairs})
    assert prepared.parts[0].groups == 4


def test_a_lesion_that_is_also_in_the_test_split_is_not_trained_on(
    source: Path, tmp_path: Path, picture: Callable[[int], np.ndarray]
) -> None:
    folder = source / "ISIC2018_Task3_Training_Input"
    mirrored = Image.fromarray(picture(len(TRAIN))[:, ::-1])  # the first test image
    mirrored.convert("RGB").save(folder / "ISIC_0000003.jpg")
    prepared = prepare_isic2018(source, tmp_path / "out", counts=SMALL)
    trained = [r.path.stem for r in read_manifest(tmp_path / "out").train_normals]
    assert trained == [f"ISIC_{k:07d}" for k in (0, 1, 4, 5, 6, 7)]  # 2 shows the lesion of 3
    assert any(note.startswith("6 of 8 images with label 0 for train") for note in prepared.notes)
    account = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert [{Path(name).stem for name in family} for family in account["alike"]] == [
        {"ISIC_0000003", "ISIC_0000010"}
    ]


def test_of_equal_images_the_test_image_stays(source: Path, tmp_path: Path) -> None:
    train, test = (source / f"ISIC2018_Task3_{part}_Input" for part in ("Training", "Test"))
    (train / "ISIC_0000003.jpg").write_bytes((test / "ISIC_0000010.jpg").read_bytes())
    prepared = prepare_isic2018(source, tmp_path / "out", counts=SMALL)
    assert [part.images for part in prepared.parts] == [6, 3, 6]


def test_without_groupings_lesions_are_unknown(source: Path, tmp_path: Path) -> None:
    (source / GROUPINGS).unlink()
    prepared = prepare_isic2018(source, tmp_path / "out", counts=SMALL)
    assert any(f"{GROUPINGS} is not in the source" in note for note in prepared.notes)
    assert {r.group for r in read_manifest(tmp_path / "out").records} == {None}


def test_tables_beside_the_images_are_found(source: Path, tmp_path: Path) -> None:
    for part in ("Training", "Test"):
        table = f"ISIC2018_Task3_{part}_GroundTruth"
        (source / table / f"{table}.csv").rename(source / f"{table}.csv")
    prepared = prepare_isic2018(source, tmp_path / "out", counts=SMALL)
    assert [part.images for part in prepared.parts] == [8, 3, 6]


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stem = "ISIC2018_Task3_Training"
    truth = source / f"{stem}_GroundTruth" / f"{stem}_GroundTruth.csv"
    good = truth.read_text(encoding="utf-8")
    lines = good.splitlines()

    def refused(match: str) -> None:
        with pytest.raises(SourceError, match=match):
            prepare_isic2018(source, out, counts=SMALL)

    with pytest.raises(SourceError, match="8 images of nv for train, 6705 are needed"):
        prepare_isic2018(source, out)
    truth.write_text(good.replace("BKL", "XYZ"), encoding="utf-8")
    refused(r"GroundTruth\.csv: no column BKL")
    truth.write_text(good.replace("0.0", "1.0", 1), encoding="utf-8")
    refused("line 2: 2 classes are marked")
    truth.write_text("\n".join([*lines, lines[1]]), encoding="utf-8")
    refused("line 12: ISIC_0000000 is there twice")
    truth.write_text("\n".join([*lines, lines[1][: -len(",0.0")]]), encoding="utf-8")
    refused("line 12: 7 cells for 8 columns")
    truth.write_text(good.replace("ISIC_0000000", "../ISIC_0000000"), encoding="utf-8")
    refused("'../ISIC_0000000' is not the name of an image")
    truth.write_text(good.replace("ISIC_0000000", "ISIC_7777777"), encoding="utf-8")
    refused(r"ISIC_7777777\.jpg: no such file, though .* lists it \(1 of 8 are missing\)")
    truth.write_text(good, encoding="utf-8")
    rows = (source / GROUPINGS).read_text(encoding="utf-8").splitlines()
    (source / GROUPINGS).write_text("\n".join(rows[:1] + rows[2:]), encoding="utf-8")
    refused("has no row for ISIC_0000000")
    truth.unlink()
    refused("no such file")
    assert not out.exists()
