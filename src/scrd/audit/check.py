"""What is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrd.audit.confounds import Confound, confound_table, full_scale, scalars
from scrd.audit.duplicates import (
    components,
    equal_groups,
    luminance,
    near_duplicates,
    thumbnail,
)
from scrd.audit.report import CheckReport, Family, Link, OddMark, Property, SplitGroup, Unreadable
from scrd.data.manifest import Manifest
from scrd.data.marks import mark
from scrd.data.reading import read_image, read_info
from scrd.data.record import Record
from scrd.errors import ImageError
from scrd.system.progress import counting
from scrd.system.threads import thread_count

_SERIES_SHOWN = 10
_NOTEWORTHY = 0.2  # distance of an AUROC from 0.5


@dataclass(frozen=True)
class _Image:
    """What is kept of a file after it was read."""

    file_digest: bytes
    pixel_digest: bytes
    properties: dict[str, str]
    small: NDArray[np.float32]
    scalars: dict[str, float]
    marks: tuple[OddMark, ...]


def check_dataset(
    manifest: Manifest, *, workers: int | None = None, progress: bool = False
) -> CheckReport:
    """Read every image of a data set and report what could spoil training or evaluation.

    A leak is a copy (equal, or near as in `scrd.audit.duplicates`) in the other split, or a group
    or patient in both. Copies within one split are reported, and expected within one group.

    Args:
        manifest: The data set.
        workers: Threads that read; by default as many as compute.
        progress: Tell on standard error how far the work is.

    Returns:
        The findings. A file that cannot be read is one of them and stops nothing.
    """
    results = []
    with (
        ThreadPoolExecutor(workers or thread_count()) as pool,
        counting("reading", len(manifest.records), progress) as advance,
    ):
        for result in pool.map(_read, manifest.records):
            results.append(result)
            advance(len(results))
    unreadable, records, images = [], [], []
    for record, result in zip(manifest.records, results, strict=True):
        if isinstance(result, _Image):
            records.append(record)
            images.append(result)
        else:
            unreadable.append(result)
    with counting("looking for copies", None, progress):
        families = _families(records, images)
    split_groups = _split_groups(manifest.records)
    confounds = confound_table(
        [image.scalars for image in images],
        [record.label for record in records],
        [record.split for record in records],
    )
    properties = _properties(records, images)
    # all slices of a volume may have the same to say about one mask
    found = {(m.file, m.reason): m for image in reversed(images) for m in image.marks}
    marks = tuple(reversed(found.values()))
    return CheckReport(
        root=str(manifest.root),
        images=len(manifest.records),
        unreadable=tuple(unreadable),
        marks=marks,
        properties=properties,
        families=families,
        split_groups=split_groups,
        confounds=confounds,
        understood=(manifest.counts, *manifest.notes),
        notes=(
            *_odd_series(manifest.records),
            *_notes(unreadable, marks, properties, families, split_groups, confounds),
        ),
    )


def _read(record: Record) -> _Image | Unreadable:
    try:
        pixels = read_image(record.source)
        info = read_info(record.source)
        content = record.path.read_bytes()
    except (ImageError, OSError) as error:
        reason = error.reason if isinstance(error, ImageError) else str(error)
        return Unreadable(record.name, reason, missing=not record.path.exists())
    header = f"{pixels.dtype} {pixels.shape}".encode()
    if pixels.min() == pixels.max():  # an empty slice is no copy of another one
        header += record.name.encode(errors="surrogateescape")
    return _Image(
        file_digest=hashlib.sha256(content + str(record.frame).encode()).digest(),
        pixel_digest=hashlib.sha256(header + pixels.tobytes()).digest(),
        properties={
            "format": info.format,
            "size": f"{info.width}x{info.height}",
            "mode": "grey" if info.channels == 1 else "RGB",
            "depth": f"{info.bits} bit",
        },
        small=thumbnail(luminance(pixels)) / np.float32(full_scale(pixels)),
        scalars=scalars(pixels, len(content)),
        marks=_odd_marks(record, (pixels.shape[0], pixels.shape[1])),
    )


def _odd_marks(record: Record, size: tuple[int, int]) -> tuple[OddMark, ...]:
    if record.mask is None and not record.boxes:
        return ()
    try:
        odd, used = mark(record, size).doubts, True
    except ImageError as error:
        odd, used = (error,), False
    return tuple(OddMark(record.name, e.path.name, e.reason, used) for e in odd)


def _odd_series(records: Sequence[Record]) -> Iterator[str]:
    """What speaks against the geometry of volumes and DICOM series, by their first file."""
    first: dict[str, Record] = {}
    for record in records:
        if record.series is not None and record.series.problems:
            first.setdefault(record.series.uid, record)
    for record in itertools.islice(first.values(), _SERIES_SHOWN):
        assert record.series is not None
        yield f"The series of {record.name}: {'; '.join(record.series.problems)}."
    if len(first) > _SERIES_SHOWN:
        yield f"{len(first) - _SERIES_SHOWN} more series like these."


def _properties(records: Sequence[Record], images: Sequence[_Image]) -> tuple[Property, ...]:
    found = []
    for name in images[0].properties if images else ():
        values = [image.properties[name] for image in images]
        counts = dict(Counter(values).most_common())
        usual = next(iter(counts))
        pairs = zip(records, values, strict=True)
        found.append(Property(name, counts, {r.name: v for r, v in pairs if v != usual}))
    return tuple(found)


def _families(records: Sequence[Record], images: Sequence[_Image]) -> tuple[Family, ...]:
    """Group copies; equal images are compared with the others once per split, not each."""
    if not images:
        return ()
    edges: list[tuple[int, int, str, float]] = []
    skipped: set[int] = set()
    for equal in equal_groups([image.pixel_digest for image in images]):
        equal.sort(key=lambda k: records[k].split != "train")
        anchor = equal[0]
        for other in equal[1:]:
            same = images[anchor].file_digest == images[other].file_digest
            edges.append((anchor, other, "same file" if same else "same pixels", 1.0))
        seen = {records[anchor].split}
        for other in equal[1:]:
            if records[other].split in seen:
                skipped.add(other)
            seen.add(records[other].split)
    kept = [k for k in range(len(images)) if k not in skipped]
    equal_pairs = {(min(a, b), max(a, b)) for a, b, *_ in edges}
    for pair in near_duplicates(np.stack([images[k].small for k in kept])):
        first, second = kept[pair.first], kept[pair.second]
        if (first, second) not in equal_pairs:
            edges.append((first, second, pair.transform, pair.similarity))
    members = components(len(images), ((a, b) for a, b, *_ in edges))
    family_of = {k: number for number, family in enumerate(members) for k in family}
    links: list[list[Link]] = [[] for _ in members]
    for a, b, relation, similarity in edges:
        crosses = records[a].split != records[b].split
        link = Link(records[a].name, records[b].name, relation, round(similarity, 4), crosses)
        links[family_of[a]].append(link)
    return tuple(
        _family([records[k] for k in family], own)
        for family, own in zip(members, links, strict=True)
    )


def _family(records: Sequence[Record], links: Sequence[Link]) -> Family:
    groups = {record.group for record in records}
    return Family(
        train=tuple(r.name for r in records if r.split == "train"),
        test=tuple(r.name for r in records if r.split != "train"),
        links=tuple(sorted(links, key=lambda link: not link.crosses)),
        one_group=len(groups) == 1 and None not in groups,
        label_conflict=len({record.label for record in records}) > 1,
    )


def _split_groups(records: Sequence[Record]) -> tuple[SplitGroup, ...]:
    members: dict[str, dict[str, list[str]]] = {}
    for record in records:
        if record.group is not None:
            splits = members.setdefault(record.group, {"train": [], "test": []})
            splits[record.split].append(record.name)
    return tuple(
        SplitGroup(group, tuple(splits["train"]), tuple(splits["test"]))
        for group, splits in members.items()
        if splits["train"] and splits["test"]
    )


def _notes(
    unreadable: Sequence[Unreadable],
    marks: Sequence[OddMark],
    properties: Sequence[Property],
    families: Sequence[Family],
    split_groups: Sequence[SplitGroup],
    confounds: Sequence[Confound],
) -> tuple[str, ...]:
    notes = []
    if unreadable:
        missing = sum(file.missing for file in unreadable)
        notes.append(f"{len(unreadable)} files cannot be read, {missing} of them missing.")
    if marks:
        unused = sum(not mark.used for mark in marks)
        notes.append(
            f"{len(marks)} findings on masks and boxes: {unused} of them are on some that cannot "
            "be used."
        )
    leaking = [family for family in families if family.is_leak]
    if leaking:
        test = sum(len(family.test) for family in leaking)
        train = sum(len(family.train) for family in leaking)
        notes.append(
            f"LEAK: {test} test images are copies of {train} training images: "
            "results on this split reward memory."
        )
    if split_groups:
        notes.append(f"LEAK: {len(split_groups)} groups or patients are in both train and test.")
    unexpected = [f for f in families if not f.is_leak and not f.one_group]
    if unexpected:
        files = sum(len(family.train) + len(family.test) for family in unexpected)
        notes.append(
            f"{files} images have copies in their own split that no group or patient explains: "
            "give each set of copies one group."
        )
    conflicts = sum(family.label_conflict for family in families)
    if conflicts:
        notes.append(f"{conflicts} sets of copies hold both normal and abnormal labels.")
    for kind in properties:
        if kind.odd:
            values = ", ".join(f"{count} {value}" for value, count in list(kind.counts.items())[:4])
            notes.append(f"Mixed {kind.name}: {values}{', ...' if len(kind.counts) > 4 else ''}.")
    for confound in confounds:
        if confound.test is not None and abs(confound.test - 0.5) >= _NOTEWORTHY:
            notes.append(
                f"{confound.name} alone separates the classes with AUROC "
                f"{max(confound.test, 1 - confound.test):.2f}: read any result against it."
            )
        if confound.shift is not None and abs(confound.shift - 0.5) >= _NOTEWORTHY:
            notes.append(
                f"{confound.name} alone tells normal test from normal training images with "
                f"AUROC {max(confound.shift, 1 - confound.shift):.2f}: "
                "false-alarm rates will not carry over."
            )
    return tuple(notes)
