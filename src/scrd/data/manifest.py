"""What the images are: labels, splits and groups from a folder, a folder tree or a CSV file."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scrd.data.reading import PICTURE_SUFFIXES, find_images
from scrd.data.series import list_sources
from scrd.data.source import Series, Source
from scrd.errors import ScrdError

_REQUIRED = ("path", "label", "class", "split")
GROUPING = ("patient", "group", "study")

_BOX = ("x_min", "y_min", "x_max", "y_max")

Box = tuple[float, float, float, float]


class ManifestError(ScrdError):
    """A data set whose description is missing or contradicts itself.

    Attributes:
        path: The folder or CSV file.
        reason: What is wrong, with the line for a CSV file.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    Attributes:
        path: Absolute path of the file, which need not exist.
        name: The path as the manifest has it, or relative to the folder, with forward slashes; of
            a frame or slice with its number behind a #.
        label: 0 normal, 1 abnormal.
        kind: Name of the class, such as "notumor" or "glioma".
        split: "train" or "test".
        group: What must not be torn apart by a split: the patient, else the group, else the
            study of the manifest, else the patient or study that a DICOM file names (patients
            under running numbers), else the NIfTI file; None where nothing is known.
        mask: Absolute path of an image that is non-zero where the anomaly is, if there is one.
        boxes: Boxes around the anomalies, each (x_min, y_min, x_max, y_max) in pixels of the
            source image, edges, origin at the top left.
        attributes: The other columns of the manifest, `patient`, `group` and `study` included.
        frame: 0-based frame or slice, see :class:`scrd.data.source.Source`.
        series: The series that a DICOM or NIfTI image belongs to.
    """

    path: Path
    name: str
    label: int
    kind: str
    split: str
    group: str | None = None
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    frame: int | None = None
    series: Series | None = field(default=None, compare=False, repr=False)

    @property
    def source(self) -> Source:
        """What to read."""
        return Source(self.path, self.frame, self.series)

    @property
    def series_name(self) -> str:
        """Name of the series; of an image alone, the image's own."""
        if self.series is not None:
            return self.series.uid
        return self.attributes.get("series") or self.name

    @property
    def study(self) -> str:
        """Name of the examination; of an image alone, the image's own."""
        if self.series is not None:
            return self.series.study
        return self.attributes.get("study") or self.name


@dataclass(frozen=True)
class Manifest:
    """A data set: its folder and its images, in the order of the manifest or sorted by name."""

    root: Path
    records: tuple[Record, ...]

    @property
    def train_normals(self) -> tuple[Record, ...]:
        """The images to train on: label 0, split "train". May be empty: see `read_manifest`."""
        return tuple(r for r in self.records if r.split == "train" and r.label == 0)

    @property
    def test(self) -> tuple[Record, ...]:
        """The images of the split "test", of either label."""
        return tuple(r for r in self.records if r.split == "test")

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all names, labels, splits, groups and file sizes.

        It does not depend on the order of the records, and no image is opened: a file replaced
        by one of the same size goes unseen. A missing file counts as one of size -1.
        """
        digest = hashlib.sha256()
        for record in sorted(self.records, key=lambda r: r.name):
            size = record.path.stat().st_size if record.path.is_file() else -1
            line = (record.name, record.label, record.split, record.group, size)
            digest.update(repr(line).encode())
        return digest.hexdigest()


def read_manifest(data: str | os.PathLike[str], *, for_training: bool = False) -> Manifest:
    """Describe a data set; of DICOM and NIfTI files the headers are read, of others nothing.

    A NIfTI volume and a DICOM file of several frames become one record an image, all with the
    label of their file. DICOM files that hold no image are passed over.

    `data` is one of

    - a CSV file, or a folder that holds `split.csv`. Columns `path`, `label` (0 normal,
      1 abnormal), `class` and `split` (train or test), and if known `patient`, `group`, `study`,
      `series` and `mask`; others are kept as attributes. Paths are relative to the CSV file's
      folder and may be absolute or lead out of it. Abnormal images in the split "train" are
      allowed and never trained on. A file `boxes.csv` beside it, with columns `path`, `x_min`,
      `y_min`, `x_max` and `y_max`, gives boxes, any number an image.
    - a folder with `train/normal`, `test/normal` and `test/<class>`, in any case of the letters.
      The mask of `test/<class>/<name>.*` is `masks/<class>/<name>.png`, where that file exists.
      Either of `train` and `test` may be missing; folders beside them are ignored.
    - any other folder: all images in it, at any depth, are normal and for training.

    Args:
        data: The folder or CSV file.
        for_training: Whether a data set without a normal training image is an error.

    Returns:
        The data set. A file that it names and that does not exist is no error here: it is
        reported when it is read.

    Raises:
        ManifestError: There is no image, or the description is incomplete or contradicts itself.
    """
    source = Path(os.path.abspath(data))
    if source.is_dir():
        table = source / "split.csv"
        children = {child.name.lower(): child for child in source.iterdir() if child.is_dir()}
        if table.is_file():
            source, records = table, _from_table(table)
        elif "train" in children or "test" in children:
            records = _from_tree(source, children)
        else:
            records = (
                Record(path, path.relative_to(source).as_posix(), 0, "normal", "train")
                for path in find_images(source)
            )
    elif not source.exists():
        raise ManifestError(source, "no such file or folder")
    elif source.suffix.lower() == ".csv":
        records = _from_table(source)
    else:
        raise ManifestError(source, "neither a folder nor a .csv file")
    root = source if source.is_dir() else source.parent
    manifest = Manifest(root, tuple(_one_an_image(list(records))))
    if not manifest.records:
        raise ManifestError(source, "no images")
    if for_training and not manifest.train_normals:
        raise ManifestError(source, "no normal image (label 0) in the split 'train'")
    return manifest


def _one_an_image(records: Sequence[Record]) -> Iterator[Record]:
    """Tell apart the images of volumes, and which images belong together."""
    deep = [
        r.path
        for r in records
        if r.path.suffix.lower() not in PICTURE_SUFFIXES and r.path.is_file()
    ]
    if not deep:
        yield from records
        return
    listing = list_sources(deep)
    unread = {failure.path for failure in listing.failures}
    sources: dict[Path, list[Source]] = {}
    for source in listing.sources:
        sources.setdefault(source.path, []).append(source)
    asked = set(deep)
    for record in records:
        if record.path not in asked or record.path in unread:
            yield record  # reading it says what is wrong
            continue
        for source in sources.get(record.path, []):
            series = source.series
            group = record.group
            if group is None and series is not None:
                group = series.patient or (
                    record.name if source.frame is not None else series.study
                )
            name = record.name if source.frame is None else f"{record.name}#{source.frame}"
            yield replace(record, name=name, group=group, frame=source.frame, series=series)


def _from_tree(root: Path, children: Mapping[str, Path]) -> Iterator[Record]:
    for split in ("train", "test"):
        if split not in children:
            continue
        folder = children[split]
        classes = [child.name for child in sorted(folder.iterdir()) if child.is_dir()]
        if split == "train" and "normal" not in [name.lower() for name in classes]:
            raise ManifestError(root, f"{folder.name}/ has no folder 'normal'")
        for path in find_images(folder):
            name = path.relative_to(root).as_posix()
            inside = path.relative_to(folder)
            if len(inside.parts) == 1:
                raise ManifestError(root, f"{name} is in no class folder")
            kind = inside.parts[0]
            mask = children["masks"] / inside.with_suffix(".png") if "masks" in children else None
            yield Record(
                path=path,
                name=name,
                label=int(kind.lower() != "normal"),
                kind=kind,
                split=split,
                mask=mask if split == "test" and mask is not None and mask.is_file() else None,
            )


def _from_table(table: Path) -> Iterator[Record]:
    boxes = _read_boxes(table.parent / "boxes.csv")
    seen: dict[str, int] = {}
    for line, row in _rows(table, _REQUIRED):
        record = _from_row(table, f"line {line}", row)
        key = os.path.normpath(record.path)
        if key in seen:
            reason = f"line {line}: {record.name} is already on line {seen[key]}"
            raise ManifestError(table, reason)
        seen[key] = line
        yield replace(record, boxes=tuple(boxes.get(key, ())))


def _read_boxes(table: Path) -> dict[str, list[Box]]:
    """Normalised path → boxes; empty where there is no such file."""
    boxes: dict[str, list[Box]] = {}
    if not table.is_file():
        return boxes
    for line, row in _rows(table, ("path", *_BOX)):
        try:
            x_min, y_min, x_max, y_max = (float(row[column]) for column in _BOX)
        except ValueError as error:
            raise ManifestError(table, f"line {line}: {error}") from error
        if not (x_min < x_max and y_min < y_max):
            raise ManifestError(table, f"line {line}: the box is empty")
        key = os.path.normpath(table.parent / row["path"])
        boxes.setdefault(key, []).append((x_min, y_min, x_max, y_max))
    return boxes


def _rows(table: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column of each row that is not blank."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream, strict=True)
            columns = [column.strip() for column in next(rows, [])]
            _check_columns(table, columns, required)
            for cells in rows:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns):
                    reason = f"line {rows.line_num}: {len(cells)} cells for {len(columns)} columns"
                    raise ManifestError(table, reason)
                yield (
                    rows.line_num,
                    {column: cell.strip() for column, cell in zip(columns, cells, strict=True)},
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(table, f"cannot be read as CSV: {error}") from error


def _check_columns(table: Path, columns: list[str], required: Sequence[str]) -> None:
    missing = [column for column in required if column not in columns]
    if missing:
        raise ManifestError(table, f"line 1: no column {', '.join(missing)}")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise ManifestError(table, f"line 1: column {', '.join(repeated)} more than once")


def _from_row(table: Path, where: str, row: Mapping[str, str]) -> Record:
    for column in ("path", "class"):
        if not row[column]:
            raise ManifestError(table, f"{where}: {column} is empty")
    if row["label"] not in ("0", "1"):
        reason = f"{where}: label is {row['label']!r}, not 0 (normal) or 1 (abnormal)"
        raise ManifestError(table, reason)
    if row["split"] not in ("train", "test"):
        raise ManifestError(table, f"{where}: split is {row['split']!r}, not train or test")
    return Record(
        path=table.parent / row["path"],
        name=row["path"],
        label=int(row["label"]),
        kind=row["class"],
        split=row["split"],
        group=next((row[column] for column in GROUPING if row.get(column)), None),
        mask=table.parent / row["mask"] if row.get("mask") else None,
        attributes={c: cell for c, cell in row.items() if c not in (*_REQUIRED, "mask")},
    )
