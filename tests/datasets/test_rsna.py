import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from scrd.data.manifest import read_manifest
from scrd.datasets.published import SourceError
from scrd.datasets.rsna import COUNTS, prepare_rsna

SMALL = {"train": 6, "test_normal": 4, "test_abnormal": 3}
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
CLASSES = ["Normal"] * 14 + ["Lung Opacity"] * 6 + ["No Lung Opacity / Not Normal"] * 2


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_dicom(path: Path, pixels: np.ndarray, view: str) -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientID = path.stem
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.ViewPosition = "CR", view
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def name_of(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


@pytest.fixture
def source(tmp_path: Path, picture: Callable[[int], np.ndarray]) -> Path:
    """22 images; NIH patient k // 2 has images k and k + 1; every opacity has two boxes."""
    root = tmp_path / "rsna"
    (root / "stage_2_train_images").mkdir(parents=True)
    classes: list[list[object]] = [["patientId", "class"]]
    labels: list[list[object]] = [["patientId", "x", "y", "width", "height", "Target"]]
    mapping = []
    for k, kind in enumerate(CLASSES):
        path = root / "stage_2_train_images" / f"{name_of(k)}.dcm"
        write_dicom(path, picture(k), "AP" if k % 3 else "PA")
        if kind == "Lung Opacity":
            labels += [[path.stem, k, 2.0, 10, 20.5, 1], [path.stem, 40, 3, 5, 5, 1]]
            classes += [[path.stem, kind]] * 2
        else:
            labels.append([path.stem, "", "", "", "", 0])
            classes.append([path.stem, kind])
        mapping.append(
            {"subset_img_id": path.stem, "img_id": f"{k // 2:08d}_{k % 2:03d}.png", "other": None}
        )
    write_table(root / "stage_2_detailed_class_info.csv", classes)
    write_table(root / "stage_2_train_labels.csv", labels)
    (root / MAPPING).write_text(json.dumps(mapping), encoding="utf-8")
    return root


def test_the_counts_are_those_of_the_paper() -> None:
    assert COUNTS == {"train": 3851, "test_normal": 1000, "test_abnormal": 1000}


def test_counts_classes_views_and_boxes(source: Path, tmp_path: Path) -> None:
    prepare_rsna(source, tmp_path / "out", counts=SMALL)
    records = read_manifest(tmp_path / "out").records
    assert Counter((r.split, r.kind, r.label) for r in records) == {
        ("train", "normal", 0): 6,
        ("test", "normal", 0): 4,
        ("test", "lung_opacity", 1): 3,
    }
    for record in records:
        number = int(record.path.stem[:8], 16)
        assert record.path.is_file()
        assert record.attributes["view"] == ("AP" if number % 3 else "PA")
        opacity = ((number, 2, number + 10, 22.5), (40, 3, 45, 8))
        assert record.boxes == (opacity if record.label else ())


@pytest.mark.parametrize("seed", range(4))
def test_no_patient_is_in_both_splits(source: Path, tmp_path: Path, seed: int) -> None:
    prepare_rsna(source, tmp_path / "out", seed=seed, counts=SMALL)
    splits: dict[str, set[str]] = {}
    for record in read_manifest(tmp_path / "out").records:
        assert record.group == f"{int(record.path.stem[:8], 16) // 2:08d}"
        splits.setdefault(record.group, set()).add(record.split)
    assert all(len(split) == 1 for split in splits.values())


def test_without_the_mapping_patients_are_unknown(source: Path, tmp_path: Path) -> None:
    (source / MAPPING).unlink()
    prepared = prepare_rsna(source, tmp_path / "out", counts=SMALL)
    assert any("Patients are unknown" in note for note in prepared.notes)
    account = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert account["notes"] == list(prepared.notes)
    assert sorted(account["source"]["tables_sha256"]) == [
        "stage_2_detailed_class_info.csv",
        "stage_2_train_labels.csv",
    ]
    records = read_manifest(tmp_path / "out").records
    assert all("patient" not in r.attributes and not r.attributes["group"] for r in records)


def test_equal_images_of_different_ids_are_kept_once(source: Path, tmp_path: Path) -> None:
    folder = source / "stage_2_train_images"
    copy = pydicom.dcmread(folder / f"{name_of(0)}.dcm")
    copy.PatientID = name_of(5)
    copy.save_as(folder / f"{name_of(5)}.dcm")
    prepare_rsna(source, tmp_path / "out", counts=SMALL)
    account = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert [Path(name).stem for name in account["dropped"]] == [name_of(5)]


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    classes = source / "stage_2_detailed_class_info.csv"
    labels = source / "stage_2_train_labels.csv"
    good = {path: path.read_text(encoding="utf-8") for path in (classes, labels, source / MAPPING)}

    def refused(match: str, path: Path, content: str) -> None:
        path.write_text(content, encoding="utf-8")
        with pytest.raises(SourceError, match=match):
            prepare_rsna(source, out, counts=SMALL)
        path.write_text(good[path], encoding="utf-8")

    with pytest.raises(SourceError, match="14 images of normal for train, 3851 are needed"):
        prepare_rsna(source, out)
    text = good[classes]
    refused("line 2: unknown class 'Healthy'", classes, text.replace("Normal", "Healthy", 1))
    refused("no column class", classes, text.replace("class", "kind", 1))
    refused(
        "stage_2_train_labels.csv: has no row for ffff",
        classes,
        text + "ffffffff-0000,Normal\n",
    )
    refused("has two classes", classes, f"{text}{name_of(0)},Lung Opacity\n")
    text = good[labels]
    refused(
        "stage_2_detailed_class_info.csv: has no row for ffff",
        labels,
        text + "ffffffff-0000,,,,,0\n",
    )
    refused("has 1 boxes and is normal", labels, f"{text}{name_of(0)},1,1,5,5,1\n")
    refused("line 30: the box is no four numbers", labels, f"{text}{name_of(20)},1,1,,5,1\n")
    mapping = source / MAPPING
    refused("list of subset_img_id and img_id", mapping, '{"a": 1}')
    refused(f"has no entry for {name_of(0)}", mapping, json.dumps(json.loads(good[mapping])[1:]))
    (source / "stage_2_train_images" / f"{name_of(0)}.dcm").unlink()
    with pytest.raises(SourceError, match=r"no such file, though .* \(1 of 20 are missing\)"):
        prepare_rsna(source, out, counts=SMALL)
    assert not out.exists()
