"""What the files about an image are called."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scrd.data.source import Source
from scrd.dicom.uids import tag
from scrd.system.files import LONGEST_NAME, safe_name

_SUFFIX = len(".nii.gz")  # the longest that is put behind a name


def output_names(sources: Sequence[Source]) -> list[Path]:
    """Relative names for what is written about each image.

    A picture is called by its path below the common folder, without the suffix unless two files
    differ in nothing else; a slice of a NIfTI volume by the volume's path and its number. DICOM
    files are often called by what is nobody's business: their names are made of the tags of study
    and series, see :func:`scrd.dicom.uids.tag`, and the image's number in the series.

    Names that some file system cannot take are changed, see :func:`scrd.system.files.safe_name`,
    and names that differ in case or accents' coding only get digits that tell them apart.
    """
    named = [s for s in sources if s.series is None or s.series.format != "DICOM"]
    paths = {s.path: Path(os.path.abspath(s.path)) for s in named}  # a link keeps its own name
    root = Path(os.path.commonpath([p.parent for p in paths.values()])) if paths else Path()
    relative = {path: absolute.relative_to(root) for path, absolute in paths.items()}
    bare = {path: _without_suffix(name) for path, name in relative.items()}
    taken = Counter([*relative.values(), *bare.values()])
    chosen = _apart(
        {
            path: _safe(name if taken[bare[path]] > 1 else bare[path])
            for path, name in relative.items()
        }
    )
    counts: Counter[int] = Counter()
    names = []
    for source in sources:
        if source.path in chosen:
            name = chosen[source.path]
            names.append(name if source.frame is None else name / f"{source.frame:04d}")
        else:
            series = source.series
            assert series is not None
            number = counts[id(series)]
            counts[id(series)] += 1
            names.append(Path(tag(series.study), tag(series.uid), f"{number:04d}"))
    return names


def _safe(path: Path) -> Path:
    return Path(*(safe_name(part, LONGEST_NAME - _SUFFIX) for part in path.parts))


def _apart(names: dict[Path, Path]) -> dict[Path, Path]:
    """Mark what a file system that does not see the difference would take for one file."""
    seen = Counter(_folded(name) for name in names.values())
    return {
        path: name
        if seen[_folded(name)] == 1
        else name.with_name(
            safe_name(name.name, LONGEST_NAME - _SUFFIX - 9)
            + "-"
            + hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
        )
        for path, name in names.items()
    }


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _without_suffix(path: Path) -> Path:
    return (
        path.with_suffix("").with_suffix("")
        if path.name.lower().endswith(".nii.gz")
        else (path.with_suffix(""))
    )
