"""What a folder without a table says about its images: splits and classes, or all normal.

Names are understood in the usual spellings. Where they can mean two things, the folder is refused
with what was found in it, rather than read one way.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scrd.data.finding import File, Found
from scrd.data.masks import add_masks, set_aside
from scrd.data.names import holds_masks, is_abnormal, is_normal, split_of
from scrd.data.record import Record
from scrd.data.tables import some
from scrd.errors import ManifestError

_ADVICE = (
    "name them train/normal, test/normal and test/<class>, or write a split.csv that says what "
    "each image is"
)
Chosen = tuple[Record, File]
_MOST_GRADES = 6  # folders 0, 1, ... up to so many may be grades of a disease


@dataclass(frozen=True)
class Understood:
    """The images of a folder, and in sentences what a user should know of how it was read."""

    records: list[Record]
    notes: list[str]


def read_folder(root: Path, found: Found, *, for_training: bool) -> Understood:
    """Understand a folder.

    Args:
        root: The folder; names are relative to it.
        found: What `scrd.data.reading.look_through` found in it.
        for_training: Whether images are wanted that are for training.

    Raises:
        ManifestError: Its folders can be understood in several ways, or not at all.
    """
    deeper = [p for p in found.others if p.name.lower() == "split.csv" and p.parent != root]
    if deeper:
        place = deeper[0].parent.relative_to(root).as_posix()
        raise ManifestError(root, f"a split.csv lies in {place}/: give that folder")
    start = len(str(root).rstrip(os.sep)) + 1
    files = [File(path, tuple(str(path)[start:].split(os.sep))) for path in found.images]
    depth = _depth(root, files)
    base = root.joinpath(*files[0].parts[:depth]) if depth else root
    files = [File(path, parts[depth:]) for path, parts in files]
    images, masks = set_aside(files)
    if files and not images:
        raise ManifestError(root, f"all {len(masks)} images look like masks by their names")
    notes = []
    if holds_masks(base.name):
        notes.append(f"the folder is called {base.name!r}: are these images?")
    if depth:
        notes.append(f"the data set was found in {base.relative_to(root).as_posix()}/")
    folders = _folders(base)
    splits = [name for name in folders if split_of(name) in ("train", "test")]
    if splits:
        chosen, told = _tree(root, base, folders, images)
    else:
        chosen, told = _classes(root, base, images, for_training)
    notes += told
    beside = ["/".join(f.parts) for f in masks if not splits or f.parts[0] in splits]
    if beside:
        notes.append(f"{len(beside)} files look like masks and are no images: {some(beside)}")
    records = [record for record, _ in chosen]
    if splits or any(record.split == "test" for record in records):
        records, told = add_masks(records, [file for _, file in chosen], masks)
        notes += told
    return Understood(records, notes)


def _depth(root: Path, images: Sequence[File]) -> int:
    """How many folders deep, each alone with its images, splits or classes lie; 0 for the root."""
    depth = 0
    while True:
        base = root.joinpath(*images[0].parts[:depth]) if images else root
        if any(split_of(name) in ("train", "test") for name in _folders(base)):
            return depth
        counts = _counts([File(path, parts[depth:]) for path, parts in images])
        only = next(iter(counts), "")
        if "" in counts or len(counts) != 1 or split_of(only) is not None:
            return depth if len(counts) > 1 and _normals(counts) else 0
        depth += 1


def _tree(
    root: Path, base: Path, folders: Sequence[str], images: Sequence[File]
) -> tuple[list[Chosen], list[str]]:
    counts = _counts(images)
    records: list[Chosen] = []
    notes: list[str] = []
    known: set[str] = set()
    used = []
    for split in ("train", "test"):
        named = [name for name in folders if split_of(name) == split]
        full = [name for name in named if counts.get(name)] or named[:1]
        if len(full) > 1:
            both = _told({name: counts[name] for name in full})
            raise ManifestError(root, f"which is the split {split}? {both}: keep one")
        for name in full:
            used.append(name)
            inside = [f for f in images if len(f.parts) > 1 and f.parts[0] == name]
            found, normals, told = _split(root, base / name, split, inside, known)
            records += found
            notes += told
            known |= {normal.casefold() for normal in normals}
    unused = {name: n for name, n in counts.items() if name not in used}
    if unused:
        what = _told({name or "no folder": n for name, n in unused.items()})
        notes.append(f"not used, because not below {' or '.join(used)}: {what}")
    return records, notes


def _split(
    root: Path, folder: Path, split: str, images: Sequence[File], known: set[str]
) -> tuple[list[Chosen], list[str], list[str]]:
    """The images of one split, its folders of normal images, and notes.

    Args:
        root: Of the data set.
        folder: Of the split.
        split: Its name, "train" or "test".
        images: All images in the folder.
        known: What the training split calls normal.
    """
    inside = [File(path, parts[1:]) for path, parts in images]
    counts = {**dict.fromkeys(_folders(folder), 0), **_counts(inside)}
    if "" in counts:
        loose = next("/".join(f.parts) for f in images if len(f.parts) == 2)
        raise ManifestError(
            root,
            f"{loose} is in no class folder, and {counts['']} images are like it: put normal "
            f"images into {folder.name}/normal",
        )
    normals = _normals(counts) or [name for name in counts if name.casefold() in known]
    full = [name for name in normals if counts[name]]
    where = folder.relative_to(root).as_posix()
    if len(full) > 1:
        both = _told({f"{where}/{name}": counts[name] for name in full})
        raise ManifestError(root, f"which of them is normal? {both}: keep one, or {_ADVICE}")
    notes = [
        f"{where}/{name} holds no image" for name, n in counts.items() if not n and name in normals
    ]
    present = {name: n for name, n in counts.items() if n}
    if present and not normals:
        if split == "train":
            raise ManifestError(
                root,
                f"{where}/ has no folder 'normal', but {_told(present)}: give the folder of normal "
                "images that name",
            )
        notes.append(
            f"{where}/ has no folder 'normal': all of it counts as abnormal: {_told(present)}"
        )
    notes += _differ_in_case(where, present)
    chosen = _records(where, split, inside, normals)
    odd = Counter(
        "/".join((where, *file.parts[:-1]))
        for record, file in chosen
        if record.label == 0 and any(map(is_abnormal, file.parts[1:-1]))
    )
    if odd:
        notes.append(f"counted as normal, but named otherwise: {_told(odd)}")
    return [(record, image) for (record, _), image in zip(chosen, images, strict=True)], full, notes


def _classes(
    root: Path, base: Path, images: Sequence[File], for_training: bool
) -> tuple[list[Chosen], list[str]]:
    """Images below no split: classes side by side, or normal images alone."""
    counts = _counts(images)
    where = base.relative_to(root).as_posix()
    normals = _normals(counts)
    named = [name for name in counts if is_abnormal(name)]
    own = split_of(base.name)
    if (normals and len(counts) > 1) or (own in ("test", "val") and named):
        if len(normals) > 1 or "" in counts or any(split_of(name) for name in counts):
            raise ManifestError(root, f"what is normal here? {_told(counts)}: {_ADVICE}")
        split = "train" if own in (None, "train") else "test"
        if for_training and split == "test":
            raise ManifestError(
                root, f"the folder is called {base.name!r}: give the one above it, or rename it"
            )
        note = f"the folder has no split: all of it counts as {split}, {_told(counts)}"
        return _records(where, split, images, normals), [note]
    doubtful = _doubtful(images)
    if doubtful:
        raise ManifestError(root, f"are these classes or splits? {_told(doubtful)}: {_ADVICE}")
    notes = _differ_in_case(".", counts)
    odd = ["/".join(f.parts) for f in images if _sounds_abnormal(f.parts[-1])]
    if odd:
        notes.append(
            f"{len(odd)} files are named like abnormal images and count as normal: {some(odd)}"
        )
    return [(Record(f.path, "/".join(f.parts), 0, "normal", "train"), f) for f in images], notes


def _doubtful(images: Sequence[File]) -> dict[str, int]:
    """Folders at any depth that are named like classes or splits, and their images."""
    found: Counter[str] = Counter()
    children: dict[tuple[str, ...], Counter[str]] = {}
    for _, parts in images:
        for depth, name in enumerate(parts[:-1]):
            children.setdefault(parts[:depth], Counter())[name] += 1
            if split_of(name) is not None or is_abnormal(name):
                found["/".join(parts[: depth + 1])] += 1
                break
    for parent, names in children.items():
        numbers = {str(n) for n in range(len(names))}
        grades = 2 <= len(names) <= _MOST_GRADES and set(names) == numbers
        if grades or {name.lower() for name in names} == {"yes", "no"}:
            found.update({"/".join((*parent, name)): n for name, n in names.items()})
    return found


def _sounds_abnormal(name: str) -> bool:
    words = re.split(r"[\W_]+", name.lower())
    return not {"abnormal", "anomaly", "defect", "pneumonia"}.isdisjoint(words)


def _normals(counts: Mapping[str, int]) -> list[str]:
    """Those of some sibling folders that are named normal; 0 and "no" beside 1 and "yes" alone."""
    found = [name for name in counts if is_normal(name)]
    if found:
        return found
    lower = {name.lower(): name for name in counts}
    for normal, abnormal in (("0", "1"), ("no", "yes")):
        if set(lower) == {normal, abnormal}:
            return [lower[normal]]
    return []


def _records(
    where: str, split: str, images: Sequence[File], normals: Sequence[str]
) -> list[Chosen]:
    before = () if where == "." else (where,)
    chosen = []
    for file in images:
        kind = file.parts[0]
        name = "/".join((*before, *file.parts))
        chosen.append((Record(file.path, name, int(kind not in normals), kind, split), file))
    return chosen


def _differ_in_case(where: str, counts: Mapping[str, int]) -> list[str]:
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(name.casefold(), []).append(name)
    return [
        f"folders of {where} that differ in capitals alone: {_told({n: counts[n] for n in names})}"
        for names in alike.values()
        if len(names) > 1
    ]


def _counts(images: Iterable[File]) -> dict[str, int]:
    """Images by the first folder; "" for those in none."""
    return dict(Counter(parts[0] if len(parts) > 1 else "" for _, parts in images))


def _told(counts: Mapping[str, int]) -> str:
    return some([f"{name or 'no folder'} ({n} images)" for name, n in sorted(counts.items())])


def _folders(base: Path) -> list[str]:
    with os.scandir(base) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
