"""From the files of a published data set to a manifest that leads to them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scrd.audit.duplicates import components
from scrd.datasets.copies import Copies, find_copies
from scrd.datasets.drawing import Candidate, Part, check_supply, draw
from scrd.datasets.published import SourceError
from scrd.system.files import write_atomically
from scrd.system.version import __version__

MANIFEST, BOXES, ACCOUNT = "split.csv", "boxes.csv", "dataset.json"


@dataclass(frozen=True)
class Drawn:
    """What a part of the protocol became.

    Attributes:
        split: "train" or "test".
        label: 0 normal, 1 abnormal.
        wanted: Number of images that the protocol asks for.
        images: Number of images drawn: less than `wanted` where copies and groups leave no more.
        groups: Number of groups that they come from; an image of no group is one of its own.
        classes: Images by class.
    """

    split: str
    label: int
    wanted: int
    images: int
    groups: int
    classes: dict[str, int]


@dataclass(frozen=True)
class Prepared:
    """A manifest that was written.

    Attributes:
        folder: Where `split.csv` is.
        parts: What was drawn.
        notes: What a reader of results should know, in sentences.
        unreadable: Name of a file relative to the source → why it was left out.
    """

    folder: Path
    parts: tuple[Drawn, ...]
    notes: tuple[str, ...]
    unreadable: dict[str, str]


def prepare(
    name: str,
    source: Path,
    out: Path,
    candidates: Sequence[Candidate],
    parts: Sequence[Part],
    *,
    seed: int,
    tables: Sequence[Path] = (),
    notes: Sequence[str] = (),
    by_group: bool = True,
    overwrite: bool = False,
    progress: bool = False,
) -> Prepared:
    """Draw the parts of a protocol and write `split.csv`, `dataset.json` and, if any, `boxes.csv`.

    Images that are copies of one another, or have the same owner, are one group, directly or by
    way of others. No group is in both splits. Of images with equal pixels the first is kept, one
    of the official test split before others; where their classes differ, none is.

    Args:
        name: Name of the data set, for `dataset.json`.
        source: The folder as published; nothing in it is changed.
        out: Folder to write to, outside the source.
        candidates: All images that may be drawn.
        parts: What is wanted.
        seed: The draw is a function of it and of the files.
        tables: The tables of the source that were read, for `dataset.json`.
        notes: Sentences for `dataset.json`.
        by_group: False draws image by image, copies included, as published results do.
        overwrite: Whether a different manifest may be replaced.
        progress: Whether a bar counts the images that were read.

    Returns:
        What was drawn and written.

    Raises:
        SourceError: The source has fewer images than the parts ask for, no image can be used, or
            `out` is in the source or holds another manifest.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise SourceError(f"{out}: is in the source folder, which is left as it is; choose another")
    check_supply(source, candidates, parts)
    candidates = sorted(candidates, key=lambda c: (c.split != "test", c.path.as_posix()))
    names = [c.path.relative_to(source).as_posix() for c in candidates]
    copies = find_copies([c.path for c in candidates], progress=progress)
    group_of = _groups(candidates, copies)
    dropped = _repeated(candidates, copies) if by_group else []
    usable = set(range(len(names))) - copies.unreadable.keys() - set(dropped)
    if not usable:
        reason = next(iter(copies.unreadable.values()), "equal ones have different classes")
        raise SourceError(f"{source}: no image can be used: {reason}")
    units = [names[group_of.get(k, k)] if by_group else name for k, name in enumerate(names)]
    chosen = list(zip(parts, draw(candidates, usable, units, parts, seed), strict=True))
    drawn = [_drawn(part, members, candidates, group_of) for part, members in chosen]
    unreadable = {names[k]: copies.unreadable[k] for k in sorted(copies.unreadable)}
    told = (*notes, *_notes(drawn, len(unreadable), len(dropped), _leaked(chosen, group_of)))

    account = {
        "dataset": name,
        "seed": seed,
        "drawn": "by groups" if by_group else "image by image",
        "parts": [asdict(part) for part in drawn],
        "notes": told,
        "source": {
            "candidates": dict(sorted(Counter(c.kind for c in candidates).items())),
            "images_sha256": _fingerprint(names, copies.digests),
            "tables_sha256": {t.relative_to(source).as_posix(): _sha256(t) for t in tables},
        },
        "unreadable": unreadable,
        "dropped": [names[k] for k in dropped],
        "equal": [[names[k] for k in group] for group in copies.equal],
        "alike": [[names[k] for k in family] for family in components(len(names), copies.near)],
        "versions": {"scrd": __version__, "numpy": np.__version__},
    }
    rows, boxes = [], []
    for part, members in chosen:
        for k in members:
            path = _relative(source / names[k], out)
            cells = {"path": path, "label": part.label, "class": candidates[k].kind}
            group = names[group_of[k]] if k in group_of else ""
            rows.append({**cells, "split": part.split, "group": group, **candidates[k].columns})
            boxes += [
                {"path": path, "x_min": x_min, "y_min": y_min, "x_max": x_max, "y_max": y_max}
                for x_min, y_min, x_max, y_max in candidates[k].boxes
            ]
    files = {BOXES: _csv(boxes)} if boxes else {}
    files |= {ACCOUNT: json.dumps(account, indent=1) + "\n", MANIFEST: _csv(rows)}
    _write(out, files, overwrite)
    return Prepared(out, tuple(drawn), told, unreadable)


def _repeated(candidates: Sequence[Candidate], copies: Copies) -> list[int]:
    """Images that show what another one shows to the pixel, and all where the classes differ."""
    dropped: list[int] = []
    for group in copies.equal:
        unanimous = len({candidates[k].kind for k in group}) == 1
        dropped += group[1:] if unanimous else group
    return sorted(dropped)


def _groups(candidates: Sequence[Candidate], copies: Copies) -> dict[int, int]:
    """First image of the group of each image that shares one."""
    links = [*copies.near]
    links += [(group[0], other) for group in copies.equal for other in group[1:]]
    first_of: dict[str, int] = {}
    for k, candidate in enumerate(candidates):
        if candidate.owner is not None:
            links.append((first_of.setdefault(candidate.owner, k), k))
    return {k: group[0] for group in components(len(candidates), links) for k in group}


def _drawn(
    part: Part,
    members: Sequence[int],
    candidates: Sequence[Candidate],
    group_of: Mapping[int, int],
) -> Drawn:
    return Drawn(
        split=part.split,
        label=part.label,
        wanted=part.images,
        images=len(members),
        groups=len({group_of.get(k, k) for k in members}),
        classes=dict(sorted(Counter(candidates[k].kind for k in members).items())),
    )


def _leaked(chosen: Sequence[tuple[Part, Sequence[int]]], group_of: Mapping[int, int]) -> int:
    """Test images that are in a group with a training image."""
    in_train = {group_of.get(k, k) for part, ks in chosen if part.split == "train" for k in ks}
    in_test = [group_of.get(k, k) for part, ks in chosen if part.split == "test" for k in ks]
    return sum(group in in_train for group in in_test)


def _notes(drawn: Sequence[Drawn], unreadable: int, dropped: int, leaked: int) -> Iterator[str]:
    for part in drawn:
        if part.images < part.wanted:
            yield (
                f"{part.images:,} of {part.wanted:,} images with label {part.label} for "
                f"{part.split}: no more are left without repeating images or tearing groups apart."
            )
    if dropped:
        yield f"{dropped:,} images were left out because another one has the same pixels."
    if leaked:
        tested = sum(part.images for part in drawn if part.split == "test")
        yield (
            f"LEAK: {leaked:,} of {tested:,} test images have a copy in the training images: "
            "results on this split reward memory."
        )
    if unreadable:
        yield f"{unreadable:,} files cannot be read and were left out."


def _fingerprint(names: Sequence[str], digests: Sequence[str]) -> str:
    """SHA-256 of names and contents of all candidates."""
    lines = sorted(f"{name} {digest}" for name, digest in zip(names, digests, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _relative(path: Path, folder: Path) -> str:
    """The way from a folder to a file; links in either are resolved, the file itself is not."""
    target = path.parent.resolve() / path.name
    return Path(os.path.relpath(target, folder.resolve())).as_posix()


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _write(out: Path, files: Mapping[str, str], overwrite: bool) -> None:
    """Write the files; the manifest goes first and comes last, so that a torn set is none."""
    manifest = out / MANIFEST
    if manifest.exists() and not overwrite:
        for name in (MANIFEST, BOXES):
            present = (out / name).read_text(encoding="utf-8") if (out / name).exists() else None
            if present != files.get(name):
                raise SourceError(f"{out / name}: is there and differs; --overwrite replaces it")
    for name in (MANIFEST, BOXES, ACCOUNT):
        (out / name).unlink(missing_ok=True)
    for name, text in files.items():
        write_atomically(out / name, text)
