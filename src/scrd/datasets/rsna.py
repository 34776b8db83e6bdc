"""The paper's chest X-ray protocol from the files of the RSNA Pneumonia Detection Challenge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from scrd.data.reading import read_info
from scrd.data.record import Box
from scrd.datasets.drawing import Candidate, Part
from scrd.datasets.protocol import Prepared, prepare
from scrd.datasets.published import SourceError, find_files, read_table
from scrd.errors import ImageError

NORMAL, ABNORMAL = "normal", "lung_opacity"
COUNTS = MappingProxyType({"train": 3851, "test_normal": 1000, "test_abnormal": 1000})
"""Images of the paper."""

_CLASSES = {
    "Normal": NORMAL,
    "Lung Opacity": ABNORMAL,
    "No Lung Opacity / Not Normal": "not_normal",
}
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def prepare_rsna(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    overwrite: bool = False,
    progress: bool = False,
) -> Prepared:
    """Write the manifest of the paper's protocol: 3,851 normals to train on, 1,000 + 1,000 to test.

    What the challenge calls `patientId` is the name of an image. The patient is known through the
    mapping to the images of NIH ChestX-ray14, whose names start with it.

    Args:
        source: Folder with `stage_2_train_images`, `stage_2_detailed_class_info.csv`,
            `stage_2_train_labels.csv` and, for the patients,
            `pneumonia-challenge-dataset-mappings_2018.json`.
        out: Folder to write `split.csv`, `boxes.csv` and `dataset.json` to.
        seed: Seed of the draw.
        counts: Number of images, by the keys of `COUNTS`.
        overwrite: Whether a different manifest in `out` may be replaced.
        progress: Whether a bar counts the images that were read.

    Returns:
        What was drawn.

    Raises:
        SourceError: A file, a column, a class or an image of the mapping is missing, the tables
            contradict each other, or there are fewer images than the counts.
    """
    class_table = source / "stage_2_detailed_class_info.csv"
    box_table = source / "stage_2_train_labels.csv"
    mapping = source / _MAPPING
    kinds, boxes = _kinds(class_table), _boxes(box_table)
    for image in sorted(kinds.keys() | boxes.keys()):
        if image not in kinds or image not in boxes:
            only, other = (class_table, box_table) if image in kinds else (box_table, class_table)
            raise SourceError(f"{other}: has no row for {image}, which {only.name} lists")
        if (kinds[image] == ABNORMAL) != bool(boxes[image]):
            raise SourceError(
                f"{box_table}: {image} has {len(boxes[image])} boxes and is {kinds[image]} in "
                f"{class_table.name}"
            )
    tables, notes = [class_table, box_table], []
    patients: dict[str, str] = {}
    if mapping.is_file():
        tables.append(mapping)
        patients = _patients(mapping)
    else:
        notes = [
            f"Patients are unknown: {_MAPPING} is not in the source. Images of one patient may be "
            "in train and in test."
        ]
    wanted = {image: kind for image, kind in kinds.items() if kind in (NORMAL, ABNORMAL)}
    paths = find_files(source / "stage_2_train_images", wanted, ".dcm", class_table)
    candidates = []
    for image, kind in wanted.items():
        if patients and image not in patients:
            raise SourceError(f"{mapping}: has no entry for {image}")
        columns = {"view": _view(paths[image])}
        if patients:
            columns = {"patient": patients[image], **columns}
        candidates.append(
            Candidate(
                paths[image],
                kind,
                owner=patients.get(image),
                columns=columns,
                boxes=tuple(boxes[image]),
            )
        )
    parts = [
        Part("train", (NORMAL,), 0, counts["train"]),
        Part("test", (NORMAL,), 0, counts["test_normal"]),
        Part("test", (ABNORMAL,), 1, counts["test_abnormal"]),
    ]
    return prepare(
        "rsna",
        source,
        out,
        candidates,
        parts,
        seed=seed,
        tables=tables,
        notes=notes,
        overwrite=overwrite,
        progress=progress,
    )


def _kinds(table: Path) -> dict[str, str]:
    """Image id → class; the table repeats an image for each of its boxes."""
    found: dict[str, str] = {}
    for line, row in read_table(table, ("patientId", "class")):
        kind = _CLASSES.get(row["class"])
        if kind is None:
            raise SourceError(f"{table}: line {line}: unknown class {row['class']!r}")
        if found.setdefault(row["patientId"], kind) != kind:
            raise SourceError(f"{table}: line {line}: {row['patientId']} has two classes")
    return found


def _boxes(table: Path) -> dict[str, list[Box]]:
    """Image id → boxes (x_min, y_min, x_max, y_max) in pixels; none for images without opacity."""
    found: dict[str, list[Box]] = {}
    sides = ("x", "y", "width", "height")
    for line, row in read_table(table, ("patientId", *sides, "Target")):
        boxes = found.setdefault(row["patientId"], [])
        if row["Target"] == "0":
            continue
        try:
            x, y, width, height = (float(row[side]) for side in sides)
        except ValueError as error:
            raise SourceError(f"{table}: line {line}: the box is no four numbers") from error
        if not (width > 0 and height > 0):
            raise SourceError(f"{table}: line {line}: the box is empty")
        boxes.append((x, y, x + width, y + height))
    return found


def _patients(mapping: Path) -> dict[str, str]:
    """Image id → NIH patient: the first part of the NIH image's name, 00000001_000.png."""
    try:
        entries = json.loads(mapping.read_text(encoding="utf-8"))
        return {entry["subset_img_id"]: entry["img_id"].split("_")[0] for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"not the challenge's list of subset_img_id and img_id ({type(error).__name__})"
        raise SourceError(f"{mapping}: {reason}") from error


def _view(path: Path) -> str:
    """View position, "AP" or "PA"; "" where the file does not give it or cannot be read."""
    try:
        return read_info(path).view or ""
    except ImageError:
        return ""
