from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from scrd.datasets import lesions, mni152

SMALL = {"train": 5, "test_normal": 4, "test_lesion": 4, "size": 48, "seed": 3}


@pytest.fixture(scope="module")
def template() -> mni152.Template:
    pytest.importorskip("nilearn", reason="the template brain is in nilearn (extra: demo)")
    return mni152.load_template()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nilearn", reason="the template brain is in nilearn (extra: demo)")
    return mni152.make_mni152(tmp_path_factory.mktemp("demo") / "mni152", **SMALL)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "split.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_manifest_names_every_image_once(data: Path) -> None:
    rows = rows_of(data)
    assert list(rows[0]) == ["path", "label", "class", "split", "patient", "mask"]
    listed = [r["path"] for r in rows] + [r["mask"] for r in rows if r["mask"]]
    on_disk = [p.relative_to(data).as_posix() for p in data.rglob("*.png")]
    assert sorted(listed) == sorted(on_disk)
    counts = {
        (split, kind, label): sum(
            (r["split"], r["class"], r["label"]) == (split, kind, label) for r in rows
        )
        for split, kind, label in {(r["split"], r["class"], r["label"]) for r in rows}
    }
    assert counts == {
        ("train", "normal", "0"): 5,
        ("test", "normal", "0"): 4,
        ("test", "lesion", "1"): 4,
    }
    assert all(r["path"].startswith(f"{r['split']}/{r['class']}/") for r in rows)
    assert all(bool(r["mask"]) == (r["label"] == "1") for r in rows)


def test_no_subject_is_in_two_parts(data: Path) -> None:
    parts: dict[str, set[tuple[str, str]]] = {}
    for row in rows_of(data):
        parts.setdefault(row["patient"], set()).add((row["split"], row["class"]))
    assert len(parts) == 3 + 2 + 2
    assert all(len(part) == 1 for part in parts.values())


def test_images_are_grey_8_bit_and_use_the_range(data: Path) -> None:
    for row in rows_of(data):
        with Image.open(data / row["path"]) as image:
            assert image.mode == "L" and image.size == (48, 48)
        values = pixels(data / row["path"])
        assert values.min() == 0 and 150 < values.max() < 255
        assert 0.25 < np.mean(values > 0) < 0.75
        border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
        assert not border.any()


def test_masks_are_lesions_inside_the_brain(data: Path) -> None:
    masked = [r for r in rows_of(data) if r["mask"]]
    for row in masked:
        mask = pixels(data / row["mask"])
        assert set(np.unique(mask)) == {0, 255}
        brain = ndimage.binary_fill_holes(pixels(data / row["path"]) > 0)
        assert brain[mask > 0].all()
        area = np.sum(mask > 0) * (mni152.FIELD_OF_VIEW / 48) ** 2
        small, large = lesions.DIAMETERS
        assert small / 2 <= 2 * np.sqrt(area / np.pi) <= large


def test_same_arguments_same_bytes_other_seed_other_images(
    template: mni152.Template, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mni152, "load_template", lambda: template)
    assert contents(mni152.make_mni152(tmp_path / "again", **SMALL)) == contents(data)
    other = contents(mni152.make_mni152(tmp_path / "other", **{**SMALL, "seed": 4}))
    same = [n for n, b in contents(data).items() if n.endswith(".png") and other[n] == b]
    assert not same


def test_subjects_and_slices_differ(data: Path) -> None:
    images = [pixels(data / r["path"]).astype(float) for r in rows_of(data)]
    for i, a in enumerate(images):
        for b in images[:i]:
            assert np.abs(a - b).mean() > 1


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_lesion_changes_its_neighbourhood_only(template: mni152.Template, index: int) -> None:
    healthy, none = mni152.make_subject(template, index, lesion=False, size=96, seed=0)
    diseased, mask = mni152.make_subject(template, index, lesion=True, size=96, seed=0)
    assert not none.any() and mask.any(axis=(1, 2)).all()
    change = np.abs(diseased.astype(float) - healthy)
    inside = change[mask].mean()
    to_lesion = np.stack([ndimage.distance_transform_edt(~m) for m in mask])
    far = change[(to_lesion * mni152.FIELD_OF_VIEW / 96 > 40) & (healthy > 0)]
    assert inside > 12
    assert far.mean() < 0.5
    # the outline of the head is the subject's, not the lesion's
    assert np.mean((healthy > 0) != (diseased > 0)) < 0.005


def test_smooth_noise_has_unit_variance_and_its_correlation_length() -> None:
    rng = np.random.default_rng(0)
    line = np.arange(0, 40, 1, dtype=np.float32)
    points = (line[:5], line, line)  # whole periods of the lattice
    draws = np.stack([lesions.smooth_noise(rng, points, 5.0) for _ in range(400)])
    assert draws.shape == (400, 5, 40, 40)
    assert abs(draws.mean()) < 0.03
    assert abs(draws.var() - 1) < 0.05
    near = np.mean(draws[..., :-1] * draws[..., 1:])
    far = np.mean(draws[..., :15] * draws[..., 25:])
    # the cubic B-spline's support is four lattice spacings, so 25 mm apart nothing is left
    assert 0.9 < near < 0.99 and abs(far) < 0.03


def test_finished_folder_is_reused_and_any_other_refused(
    template: mni152.Template, data: Path, tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*")}
    assert mni152.make_mni152(data, **SMALL) == data
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*")} == before
    with pytest.raises(mni152.DemoDataError, match="something other"):
        mni152.make_mni152(data, **{**SMALL, "train": 6})
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(mni152.DemoDataError, match="something other"):
        mni152.make_mni152(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_folder_carries_the_copyright_notice(data: Path) -> None:
    record = json.loads((data / "mni152.json").read_text())
    assert "Copyright (C) 1993-2004 Louis Collins" in record["notice"]
    assert "simulated" in record["notice"]


def test_broken_off_build_leaves_nothing(
    template: mni152.Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = mni152.make_subject, []

    def interrupted(*args: object, **kwargs: object) -> object:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(args)
        return make(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(mni152, "load_template", lambda: template)
    monkeypatch.setattr(mni152, "make_subject", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mni152.make_mni152(tmp_path / "demo", **SMALL)
    assert len(made) == 3
    assert list(tmp_path.iterdir()) == []


def test_without_nilearn_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "nilearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nilearn", None)  # type: ignore[arg-type]
    importlib.invalidate_caches()
    with pytest.raises(mni152.DemoDataError, match=r"pip install 'scrd\[demo\]'"):
        mni152.make_mni152(tmp_path / "demo", **SMALL)
    assert list(tmp_path.iterdir()) == []
