"""Splits drawn at random: what moves, what stays, and what is said of torn groups."""

from collections import Counter
from pathlib import Path

import pytest

from scrd.bench.material import read_material
from scrd.bench.protocol import split_at_random, split_facts
from scrd.bench.suite_file import read_suite
from scrd.data.manifest import Manifest
from scrd.data.record import Record


def record(i, split, label=0, group=None):
    return Record(Path(f"/d/{i}.png"), f"{i}.png", label, "x", split, group)


@pytest.fixture
def manifest():
    train = [record(i, "train", group=f"g{i // 4}") for i in range(80)]
    tested = [record(80 + i, "test", group=f"t{i // 4}") for i in range(20)]
    abnormal = [record(100 + i, "test", 1, f"a{i}") for i in range(10)]
    return Manifest(Path("/d"), (*train, *tested, *abnormal))


def test_normals_are_drawn_by_image_and_nothing_else_changes(manifest):
    drawn = split_at_random(manifest, 3)
    assert [(r.name, r.label, r.group) for r in drawn.records] == [
        (r.name, r.label, r.group) for r in manifest.records
    ]
    assert Counter((r.split, r.label) for r in drawn.records) == Counter(
        (r.split, r.label) for r in manifest.records
    )
    assert [r for r in drawn.records if r.label] == [r for r in manifest.records if r.label]
    pairs = zip(drawn.records, manifest.records, strict=True)
    moved = [new.name for new, old in pairs if new.split != old.split]
    assert 20 < len(moved) <= 40  # 16 of the 20 on average, each with one that takes its place
    assert split_at_random(manifest, 3) == drawn != split_at_random(manifest, 4)


def test_torn_groups_are_counted_as_a_loop_does(manifest):
    assert split_facts(manifest.records)["torn"] == 0
    drawn = split_at_random(manifest, 0)
    normals = [r for r in drawn.records if r.label == 0]
    torn = 0
    for tested in normals:
        if tested.split == "test":
            torn += any(r.split == "train" and r.group == tested.group for r in normals)
    facts = split_facts(drawn.records)
    assert facts == {"tested": 20, "grouped": 20, "torn": torn, "train_grouped": 80}
    assert torn > 10
    nameless = [record(i, "train") for i in range(4)] + [record(5, "test")]
    assert split_facts(nameless) == {
        "tested": 1,
        "grouped": 0,
        "torn": 0,
        "train_grouped": 0,
    }


def test_a_run_at_random_reads_other_images_and_has_a_key_of_its_own(suite_file, data):
    text = suite_file.read_text()
    suite_file.write_text(text.replace('method = "corner"', 'method = "corner"\nsplit = "random"'))
    suite = read_suite(str(suite_file))
    plain, drawn = (
        suite.runs("small", rows=[label], sets=["skin"], seeds=[0])[0]
        for label in ("bright", "corner")
    )
    assert "split" not in plain.key("f") and drawn.key("f")["split"] == "random"
    names = [
        {r.name for r in read_material(data / "skin", run.config, split=run.split).test.records}
        for run in (plain, drawn)
    ]
    assert len(names[0]) == len(names[1]) == 15
    assert any(name.startswith("train/") for name in names[1])
    assert not any(name.startswith("train/") for name in names[0])
