"""What the images are: labels, splits and groups from a folder, a folder tree or a CSV file."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scrd.data.finding import PICTURE_SUFFIXES, in_words, look_through
from scrd.data.layout import read_folder
from scrd.data.names import is_abnormal, is_normal
from scrd.data.reading import file_format
from scrd.data.record import Record
from scrd.data.series import list_sources
from scrd.data.source import Source
from scrd.data.tables import GROUPING, add_boxes, read_table
from scrd.errors import ImageError, ManifestError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """A data set: its folder and its images, in the order of the manifest or sorted by name.

    Attributes:
        root: The folder.
        records: The images.
        notes: In sentences, what was passed over, is in doubt or fits nothing.
    """

    root: Path
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    @property
    def train_normals(self) -> tuple[Record, ...]:
        """The images to train on: label 0, split "train". May be empty: see `read_manifest`."""
        return tuple(r for r in self.records if r.split == "train" and r.label == 0)

    @property
    def test(self) -> tuple[Record, ...]:
        """The images of the split "test", of either label."""
        return tuple(r for r in self.records if r.split == "test")

    @property
    def counts(self) -> str:
        """How many images of which class were understood to be in which split, in a sentence."""
        parts = []
        for split in ("train", "test"):
            found: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
            for record in self.records:
                if record.split == split:
                    found[record.label][record.kind] += 1
            said = [
                f"{kinds.total()} {word} ({_shown(kinds)}{', not trained on' * bool(never)})"
                for kinds, word, never in (
                    (found[0], "normal", False),
                    (found[1], "abnormal", split == "train"),
                )
                if kinds
            ]
            parts.append(f"{split}: {', '.join(said) or 'no images'}")
        return "; ".join(parts)

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
    label of their file. What is passed over, is in doubt or fits nothing is in the notes of the
    result, and is logged as a warning.

    `data` is one of

    - a CSV file, or a folder that holds `split.csv`. Columns `path`, `label` (0 normal,
      1 abnormal), `class` and `split` (train or test), and if known `patient`, `group`, `study`,
      `series` and `mask`; others are kept as attributes. Paths are relative to the CSV file's
      folder and may be absolute or lead out of it. Abnormal images in the split "train" are
      allowed and never trained on.
    - a folder with `train/normal`, `test/normal` and `test/<class>`, in the usual spellings, see
      :mod:`scrd.data.layout`; masks beside them, see :mod:`scrd.data.masks`. Either of `train`
      and `test` may be missing; folders beside them are not used.
    - any other folder: all images in it, at any depth, are normal and for training, unless its
      folders are named like classes or splits.

    A file `boxes.csv` in the folder, with columns `path`, `x_min`, `y_min`, `x_max` and `y_max`,
    gives boxes, any number an image.

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
    notes: list[str] = []
    if source.is_dir():
        root = source
        table = _file_called("split.csv", source)
        if table is not None:
            source, records = table, list(read_table(table))
        else:
            found = look_through(source)
            understood = read_folder(source, found, for_training=for_training)
            records, notes = understood.records, understood.notes
            notes += filter(None, [in_words(found.others)])
    elif not source.exists():
        raise ManifestError(source, "no such file or folder")
    elif source.suffix.lower() in (".csv", ".tsv"):
        root, records = source.parent, list(read_table(source))
    else:
        raise ManifestError(source, "neither a folder nor a .csv file")
    boxes = _file_called("boxes.csv", root)
    if boxes is not None:
        records, told = add_boxes(boxes, records)
        notes += told
    records, told = _one_an_image(records)
    notes += [*told, *_labels(records), *_patients(records)]
    slices = sum(bool(r.boxes) and r.frame is not None for r in records)
    if slices:
        notes.append(f"boxes of volumes mark each of their slices, {slices} in all")
    if not records:
        raise ManifestError(source, "; ".join(["no images", *notes]))
    if for_training and not any(r.split == "train" and r.label == 0 for r in records):
        raise ManifestError(source, "no normal image (label 0) in the split 'train'")
    for note in notes:
        _LOG.warning("%s: %s", root, note)
    return Manifest(root, tuple(records), tuple(notes))


def _file_called(name: str, folder: Path) -> Path | None:
    """The file of that name, in whatever capitals."""
    found = sorted(path for path in folder.iterdir() if path.name.lower() == name)
    if len(found) > 1:
        raise ManifestError(folder, f"{' and '.join(path.name for path in found)}: keep one")
    return found[0] if found else None


def _shown(kinds: Counter[str]) -> str:
    shown = [f"{n} {kind}" for kind, n in kinds.most_common(12)]
    return ", ".join(shown) + (f" and {len(kinds) - 12} more classes" if len(kinds) > 12 else "")


def _labels(records: Sequence[Record]) -> Iterator[str]:
    """Doubts about the labels that a table gives to classes."""
    labels: dict[str, Counter[int]] = {}
    for record in records:
        labels.setdefault(record.kind, Counter())[record.label] += 1
    for kind, counts in labels.items():
        if len(counts) > 1:
            yield f"class {kind!r} has both labels: {counts[0]} images 0, {counts[1]} images 1"
        elif (1 in counts and is_normal(kind)) or (0 in counts and is_abnormal(kind)):
            label = next(iter(counts))
            yield f"class {kind!r} has label {label} ({('normal', 'abnormal')[label]})"


def _patients(records: Sequence[Record]) -> Iterator[str]:
    """Doubts about the patients that DICOM headers name."""
    read = [r for r in records if r.series is not None and r.series.format == "DICOM"]
    # where a table names the groups, the headers' patients do not count
    read = [r for r in read if not any(r.attributes.get(column) for column in GROUPING)]
    named = {r.series.patient for r in read if r.series is not None and r.series.patient}
    without = sum(r.series is not None and r.series.patient is None for r in read)
    if named and without:
        yield (
            f"{without} of {len(read)} DICOM images name no patient: their studies count as "
            "patients of their own"
        )
    studies = {r.series.study for r in read if r.series is not None}
    if len(named) == 1 and not without and len(studies) > 1:
        yield (
            f"all {len(read)} DICOM images, of {len(studies)} studies, carry one Patient ID, as "
            "after anonymisation: they count as one patient; if they are of several, name those in "
            "the column 'patient' of a split.csv"
        )


def _one_an_image(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Tell apart the images of volumes, and which images belong together.

    Files that are copies of others are images too: they may be in another split.
    """
    deep = [
        r.path
        for r in records
        if r.path.suffix.lower() not in PICTURE_SUFFIXES and r.path.is_file()
    ]
    if not deep:
        return list(records), []
    listing = list_sources(deep)
    sources: dict[Path, list[Source]] = {}
    for source in listing.sources:
        sources.setdefault(source.path, []).append(source)
    asked = set(deep)
    copies, empty = _left_out([path for path in deep if path not in sources], sources)
    sources |= copies
    found: list[Record] = []
    for record in records:
        if record.path in asked and record.path in empty:
            continue
        if record.path not in sources:
            found.append(record)  # reading it says what is wrong
            continue
        for source in sources[record.path]:
            series = source.series
            group = record.group
            if group is None and series is not None:
                group = series.patient or (
                    record.name if source.frame is not None else series.study
                )
            name = record.name if source.frame is None else f"{record.name}#{source.frame}"
            found.append(replace(record, name=name, group=group, frame=source.frame, series=series))
    notes = [f"{len(empty)} DICOM files hold no image and are left out"] if empty else []
    return found, notes


def _left_out(
    paths: Sequence[Path], sources: Mapping[Path, Sequence[Source]]
) -> tuple[dict[Path, list[Source]], set[Path]]:
    """What became of files that gave no source: copies of others, and DICOM files without image.

    Returns:
        The images of the copies, with the series of what they are copies of; and the files that
        hold no image. Files that cannot be read are in neither.
    """
    from scrd.data.formats.dicom import read_header

    copies: dict[Path, list[Source]] = {}
    empty: set[Path] = set()
    unplaced = []
    for path in paths:
        try:
            if file_format(path) != "DICOM":
                continue
            header = read_header(path)
        except ImageError:
            continue
        if header.own or not header.is_image:
            empty.add(path)
        else:
            unplaced.append(header)
    if unplaced:
        originals = {}
        wanted = {header.sop_uid for header in unplaced}
        for path, found in sources.items():
            if found[0].series is not None and found[0].series.format == "DICOM":
                original = read_header(path).sop_uid
                if original in wanted:
                    originals[original] = found
        for header in unplaced:
            twin = originals.get(header.sop_uid)
            if twin is not None:
                copies[header.path] = [replace(source, path=header.path) for source in twin]
    return copies, empty
