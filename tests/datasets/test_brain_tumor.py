"""The protocol on a tiny source of the Kaggle layout; and what all three protocols share."""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scrd.audit.check import check_dataset
from scrd.data.manifest import read_manifest
from scrd.datasets.brain_tumor import COUNTS, prepare_brain_tumor
from scrd.datasets.published import SourceError
from scrd.errors import ConfigError

SMALL = {"train": 10, "test_normal": 6, "test_glioma": 3}


@pytest.fixture
def source(tmp_path: Path, picture: Callable[[int], np.ndarray]) -> Path:
    """24 normal files: 8 pictures, each also mirrored and brightened. 5 + 5 files with tumours."""
    root = tmp_path / "kaggle"
    for folder in ("Training", "Testing"):
        for kind in ("glioma", "meningioma", "notumor", "pituitary"):
            (root / folder / kind).mkdir(parents=True)
    for k in range(24):
        pixels = picture(k // 3)
        variants = (pixels, pixels[:, ::-1], np.clip(pixels * 1.2, 0, 255).astype(np.uint8))
        folder = "Testing" if k % 3 == 2 else "Training"
        Image.fromarray(variants[k % 3]).save(root / folder / "notumor" / f"no_{k:02d}.png")
    for k in range(5):
        Image.fromarray(picture(100 + k)).save(root / "Training" / "glioma" / f"gl_{k}.png")
        Image.fromarray(picture(200 + k)).save(root / "Testing" / "meningioma" / f"me_{k}.png")
        Image.fromarray(picture(300 + k)).save(root / "Testing" / "pituitary" / f"pi_{k}.png")
    return root


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "split.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def account_of(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def test_the_counts_are_those_of_the_paper() -> None:
    assert COUNTS == {"train": 1000, "test_normal": 600, "test_glioma": 300}


def test_counts_classes_and_paths(source: Path, tmp_path: Path) -> None:
    before = contents(source)
    prepare_brain_tumor(source, tmp_path / "out", counts=SMALL)
    manifest = read_manifest(tmp_path / "out")
    found = Counter((r.split, r.kind, r.label) for r in manifest.records)
    assert found == {
        ("train", "notumor", 0): 10,
        ("test", "notumor", 0): 6,
        ("test", "glioma", 1): 3,
        ("test", "meningioma", 1): 3,
    }
    assert all(r.path.is_file() and r.path.resolve().parents[2] == source for r in manifest.records)
    assert not any(os.path.isabs(r.name) for r in manifest.records)
    assert contents(source) == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dataset.json", "split.csv"]


@pytest.mark.parametrize("seed", range(4))
def test_variants_of_a_picture_stay_in_one_split(source: Path, tmp_path: Path, seed: int) -> None:
    prepare_brain_tumor(source, tmp_path / "out", seed=seed, counts=SMALL)
    splits: dict[int, set[str]] = {}
    for row in rows_of(tmp_path / "out"):
        if row["class"] == "notumor":
            number = int(Path(row["path"]).stem.split("_")[1]) // 3
            splits.setdefault(number, set()).add(row["split"])
            assert row["group"]
    assert all(len(split) == 1 for split in splits.values())
    assert not check_dataset(read_manifest(tmp_path / "out")).has_leak


def test_the_published_draw_leaks_and_says_so(source: Path, tmp_path: Path) -> None:
    prepared = prepare_brain_tumor(source, tmp_path / "out", split="paper", counts=SMALL)
    report = check_dataset(read_manifest(tmp_path / "out"))
    leaked = sum(len(family.test) for family in report.families if family.is_leak)
    assert leaked > 0
    assert any(note.startswith(f"LEAK: {leaked} of 12 test images") for note in prepared.notes)
    assert account_of(tmp_path / "out")["drawn"] == "image by image"


def test_groups_that_do_not_suffice_are_said(source: Path, tmp_path: Path) -> None:
    counts = {**SMALL, "train": 17, "test_normal": 7}  # 7 take parts of 3 groups; 15 are left
    prepared = prepare_brain_tumor(source, tmp_path / "out", counts=counts)
    assert [part.images for part in prepared.parts] == [15, 7, 3, 3]
    assert any(note.startswith("15 of 17 images with label 0 for train") for note in prepared.notes)
    paper = prepare_brain_tumor(source, tmp_path / "paper", split="paper", counts=counts)
    assert [part.images for part in paper.parts] == [17, 7, 3, 3]


def test_equal_pixels_are_kept_once(source: Path, tmp_path: Path) -> None:
    first = source / "Training" / "glioma" / "gl_0.png"
    again = Image.open(first)
    again.save(source / "Testing" / "glioma" / "copy.png", optimize=False, compress_level=1)
    counts = {**SMALL, "test_glioma": 5}
    prepare_brain_tumor(source, tmp_path / "out", counts=counts)
    account = account_of(tmp_path / "out")
    assert account["equal"] == [["Testing/glioma/copy.png", "Training/glioma/gl_0.png"]]
    assert account["dropped"] == ["Training/glioma/gl_0.png"]
    names = [Path(row["path"]).name for row in rows_of(tmp_path / "out")]
    assert "copy.png" in names and "gl_0.png" not in names


def test_equal_pixels_of_two_classes_are_left_out(source: Path, tmp_path: Path) -> None:
    first = source / "Training" / "glioma" / "gl_0.png"
    (source / "Testing" / "meningioma" / "copy.png").write_bytes(first.read_bytes())
    counts = {**SMALL, "test_glioma": 5}
    prepared = prepare_brain_tumor(source, tmp_path / "out", counts=counts)
    assert [part.classes for part in prepared.parts[2:]] == [{"glioma": 4}, {"meningioma": 5}]
    assert len(account_of(tmp_path / "out")["dropped"]) == 2


def test_the_seed_decides_and_is_written_down(source: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        prepare_brain_tumor(source, tmp_path / name, seed=seed, counts=SMALL)
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first["split.csv"] != other["split.csv"]
    assert account_of(tmp_path / "other")["seed"] == 2


def test_the_account_names_the_source(source: Path, tmp_path: Path) -> None:
    prepare_brain_tumor(source, tmp_path / "out", counts=SMALL)
    account = account_of(tmp_path / "out")
    assert account["source"]["candidates"] == {"glioma": 5, "meningioma": 5, "notumor": 24}
    names = [p for p in contents(source) if "pituitary" not in p]
    lines = sorted(f"{p} {hashlib.sha256((source / p).read_bytes()).hexdigest()}" for p in names)
    expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert account["source"]["images_sha256"] == expected
    assert str(tmp_path) not in json.dumps(account)


def test_unreadable_files_are_left_out_and_named(source: Path, tmp_path: Path) -> None:
    (source / "Training" / "glioma" / "broken.jpg").write_bytes(b"no image")
    prepared = prepare_brain_tumor(source, tmp_path / "out", counts={**SMALL, "test_glioma": 5})
    assert list(prepared.unreadable) == ["Training/glioma/broken.jpg"]
    assert account_of(tmp_path / "out")["unreadable"] == prepared.unreadable
    assert not any("broken" in row["path"] for row in rows_of(tmp_path / "out"))


def test_a_source_without_a_usable_image_is_refused(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(SourceError, match="no image can be used: the file is empty"):
        prepare_brain_tumor(source, tmp_path / "out", counts=SMALL)


def test_a_different_manifest_is_replaced_on_request_only(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_brain_tumor(source, out, seed=1, counts=SMALL)
    before = contents(out)
    prepare_brain_tumor(source, out, seed=1, counts=SMALL)
    with pytest.raises(SourceError, match="differs; --overwrite"):
        prepare_brain_tumor(source, out, seed=2, counts=SMALL)
    assert contents(out) == before
    (out / "boxes.csv").write_text("path,x_min,y_min,x_max,y_max\n", encoding="utf-8")
    prepare_brain_tumor(source, out, seed=2, counts=SMALL, overwrite=True)
    assert account_of(out)["seed"] == 2
    assert sorted(contents(out)) == ["dataset.json", "split.csv"]


def test_paths_lead_to_the_source_through_links(source: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "down").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "down", target_is_directory=True)
    (tmp_path / "data").symlink_to(source, target_is_directory=True)
    prepare_brain_tumor(tmp_path / "data", tmp_path / "link" / "out", counts=SMALL)
    records = read_manifest(tmp_path / "link" / "out").records
    assert all(record.path.is_file() for record in records)


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is in the source folder"):
        prepare_brain_tumor(source, source / "out", counts=SMALL)
    with pytest.raises(SourceError, match="24 images of notumor for train, 1000 are needed"):
        prepare_brain_tumor(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="groups, paper"):
        prepare_brain_tumor(source, tmp_path / "out", split="random", counts=SMALL)
    with pytest.raises(SourceError, match="elsewhere.*Training.*no such folder"):
        prepare_brain_tumor(tmp_path / "elsewhere", tmp_path / "out", counts=SMALL)
    assert not (tmp_path / "out").exists()


def test_real_variants_stay_in_one_split(tmp_path: Path) -> None:
    default = Path(__file__).parents[3] / "shared" / "data"
    source = Path(os.environ.get("SCRD_DATA", default)) / "brain-tumor-mri"
    if not source.is_dir():
        pytest.skip("the real brain images are not here: set SCRD_DATA")
    # all normals there are: the groups must fit to the last image
    counts = {"train": 982, "test_normal": 400, "test_glioma": 190}
    prepared = prepare_brain_tumor(source, tmp_path / "out", counts=counts)
    assert [part.images for part in prepared.parts] == [982, 400, 190, 190]
    # groups that were made by other means, from thumbnails that correlate at 0.99
    variants = {(source / row["path"]).resolve(): row["group"] for row in rows_of(source)}
    splits: dict[str, set[str]] = {}
    for record in read_manifest(tmp_path / "out").records:
        splits.setdefault(variants[record.path.resolve()], set()).add(record.split)
    assert len(splits) > 300
    assert not [group for group, split in splits.items() if len(split) > 1]
