"""The paper's brain tumour protocol from Kaggle's "Brain Tumor MRI Dataset"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from scrd.data.finding import find_images
from scrd.datasets.drawing import Candidate, Part
from scrd.datasets.protocol import Prepared, prepare
from scrd.datasets.published import SourceError
from scrd.errors import ConfigError

FOLDERS = ("Training", "Testing")
NORMAL, ABNORMAL = "notumor", ("glioma", "meningioma")
COUNTS = MappingProxyType({"train": 1000, "test_normal": 600, "test_glioma": 300})
"""Images of the paper; `test_glioma` is also the number of meningiomas."""

SPLITS = ("groups", "paper")


def prepare_brain_tumor(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    split: str = "groups",
    counts: Mapping[str, int] = COUNTS,
    overwrite: bool = False,
    progress: bool = False,
) -> Prepared:
    """Write the manifest of the paper's protocol: 1,000 normals to train on, 600 + 600 to test.

    The paper pools `Training` and `Testing` (its 2,000, 1,621 and 1,645 images are their sums) and
    draws from both; so does this.

    Args:
        source: Folder with `Training` and `Testing`, each with `glioma`, `meningioma`, `notumor`.
        out: Folder to write `split.csv` and `dataset.json` to.
        seed: Seed of the draw.
        split: "groups" leaves images with equal pixels out and keeps near copies in one split;
            "paper" draws image by image from all files, with the leak that follows.
        counts: Number of images, by the keys of `COUNTS`.
        overwrite: Whether a different manifest in `out` may be replaced.
        progress: Whether a bar counts the images that were read.

    Returns:
        What was drawn; in "groups" less than the counts where the distinct images do not suffice.

    Raises:
        ConfigError: `split` is neither.
        SourceError: A folder is missing, or the source has fewer images than the counts.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}, not one of {', '.join(SPLITS)}")
    candidates = []
    for folder in FOLDERS:
        for kind in (NORMAL, *ABNORMAL):
            place = source / folder / kind
            if not place.is_dir():
                raise SourceError(f"{place}: no such folder")
            candidates += [Candidate(path, kind) for path in find_images(place)]
    parts = [
        Part("train", (NORMAL,), 0, counts["train"]),
        Part("test", (NORMAL,), 0, counts["test_normal"]),
        *(Part("test", (kind,), 1, counts["test_glioma"]) for kind in ABNORMAL),
    ]
    return prepare(
        "brain-tumor",
        source,
        out,
        candidates,
        parts,
        seed=seed,
        notes=["Patients are unknown: the source publishes none. Groups are sets of copies."],
        by_group=split == "groups",
        overwrite=overwrite,
        progress=progress,
    )
