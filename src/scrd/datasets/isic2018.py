"""The paper's dermoscopy protocol from the files of ISIC 2018, task 3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from scrd.datasets.drawing import Candidate, Part
from scrd.datasets.protocol import Prepared, prepare
from scrd.datasets.published import SourceError, find_files, read_table

NORMAL, ABNORMAL = "nv", ("mel", "bcc", "akiec", "bkl", "df", "vasc")
COUNTS = MappingProxyType({"train": 6705, "test_normal": 909, "test_abnormal": 603})
"""Images of the paper: all naevi of the official training set, all of the official test set."""

_SPLITS = {"train": "ISIC2018_Task3_Training", "test": "ISIC2018_Task3_Test"}
_LESIONS = "ISIC2018_Task3_Training_LesionGroupings.csv"


def prepare_isic2018(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int] = COUNTS,
    overwrite: bool = False,
    progress: bool = False,
) -> Prepared:
    """Write the manifest of the paper's protocol: 6,705 naevi to train on, 909 + 603 to test.

    The official splits are kept. Training images that are copies of a test image, or show the
    lesion of such a copy, are left out.

    Args:
        source: Folder with `ISIC2018_Task3_Training_Input`, `ISIC2018_Task3_Test_Input` (JPEG),
            the tables `..._GroundTruth.csv`, beside them or in folders of the same name, and
            `ISIC2018_Task3_Training_LesionGroupings.csv`, without which lesions are unknown.
        out: Folder to write `split.csv` and `dataset.json` to.
        seed: Seed of the draw; without effect on the full counts.
        counts: Number of images, by the keys of `COUNTS`.
        overwrite: Whether a different manifest in `out` may be replaced.
        progress: Whether a bar counts the images that were read.

    Returns:
        What was drawn.

    Raises:
        SourceError: A file, a column or a class is missing, or there are fewer images than the
            counts.
    """
    lesions, table = _lesions(source)
    tables = [] if table is None else [table]
    notes = ["Patients are unknown, and so are the lesions of the test images."]
    if table is None:
        notes = [f"Patients and lesions are unknown: {_LESIONS} is not in the source."]
    candidates = []
    for split, stem in _SPLITS.items():
        truth = _find(source, f"{stem}_GroundTruth.csv")
        tables.append(truth)
        classes = {
            image: kind
            for image, kind in _classes(truth).items()
            if split == "test" or kind == NORMAL
        }
        paths = find_files(source / f"{stem}_Input", classes, ".jpg", truth)
        for image, kind in classes.items():
            if split == "train" and table is not None and image not in lesions:
                raise SourceError(f"{table}: has no row for {image}, which {truth.name} lists")
            lesion, how = lesions.get(image, ("", ""))
            columns = {"lesion": lesion, "dx_type": how}
            candidates.append(Candidate(paths[image], kind, split, lesion or None, columns))
    parts = [
        Part("train", (NORMAL,), 0, counts["train"]),
        Part("test", (NORMAL,), 0, counts["test_normal"]),
        Part("test", ABNORMAL, 1, counts["test_abnormal"]),
    ]
    return prepare(
        "isic2018",
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


def _find(source: Path, name: str) -> Path:
    """The table in the folder that its archive unpacks to, else in the source itself."""
    unpacked = source / Path(name).stem / name
    return unpacked if unpacked.is_file() else source / name


def _classes(table: Path) -> dict[str, str]:
    """Image id → class, lower case, from a one-hot table."""
    kinds = (NORMAL, *ABNORMAL)
    found: dict[str, str] = {}
    for line, row in read_table(table, ("image", *(kind.upper() for kind in kinds))):
        marked = [kind for kind in kinds if row[kind.upper()] in ("1", "1.0")]
        if len(marked) != 1:
            raise SourceError(f"{table}: line {line}: {len(marked)} classes are marked, not one")
        if row["image"] in found:
            raise SourceError(f"{table}: line {line}: {row['image']} is there twice")
        found[row["image"]] = marked[0]
    return found


def _lesions(source: Path) -> tuple[dict[str, tuple[str, str]], Path | None]:
    """Image id → lesion and how the diagnosis was reached, and the table if there is one."""
    folder = source / f"{_SPLITS['train']}_GroundTruth"
    table = next((p for p in (source / _LESIONS, folder / _LESIONS) if p.is_file()), None)
    if table is None:
        return {}, None
    rows = (row for _, row in read_table(table, ("image", "lesion_id")))
    return {
        row["image"]: (row["lesion_id"], row.get("diagnosis_confirm_type", "")) for row in rows
    }, table
