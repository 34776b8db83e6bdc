"""Test images with masks or boxes are localised from the pass that scores them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from scrd.bench.material import Labelled, read_material
from scrd.bench.measure import measure
from scrd.bench.places import Places
from scrd.bench.suite_file import read_suite
from scrd.data.preprocess import map_to_source
from scrd.data.reading import read_image
from scrd.detector import Detector
from scrd.metrics.pixels import localisation_metrics

ROWS, COLUMNS = 80, 96
SPOT = np.s_[8:24, 60:76]


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Eight normals to test, four abnormals with a mask, two with a box, one with neither."""
    root, rng = tmp_path_factory.mktemp("marked") / "set", np.random.default_rng(0)
    rows = ["path,label,class,split,mask"]
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    mask[SPOT] = 255
    root.mkdir()
    Image.fromarray(mask).save(root / "mask.png")
    for i in range(24 + 8 + 7):
        image = 90 + rng.normal(0, 12) + rng.normal(0, 5, (ROWS, COLUMNS))
        abnormal = i >= 32
        if abnormal:
            image[SPOT] += 60
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"{i}.png")
        split, kind = "train" if i < 24 else "test", "spot" if abnormal else "normal"
        rows.append(f"{i}.png,{int(abnormal)},{kind},{split},{'mask.png' if 32 <= i < 36 else ''}")
    (root / "split.csv").write_text("\n".join(rows))
    boxes = [f"{i}.png,60,8,76,24" for i in (36, 37)]
    (root / "boxes.csv").write_text("\n".join(["path,x_min,y_min,x_max,y_max", *boxes]))
    return root


@pytest.fixture
def run(suite_file):
    run = read_suite(str(suite_file)).runs("small", methods=["brightness"])[0]
    return replace(run, data="set")


def test_all_pixels_of_the_marked_and_the_normals_count(run, marked):
    line = measure(run, read_material(marked, run.config), "cpu")
    images = {i: read_image(marked / f"{i}.png").astype(np.float32) for i in range(39)}
    material = read_material(marked, run.config)
    rule, centre = material.prepared.preprocessing, material.prepared.fitting.images.mean()
    maps, masks = [], []
    for record, image in zip(material.test.records, material.test.stack.images, strict=True):
        number = int(record.path.stem)
        if number == 38:
            continue  # abnormal, and nobody knows where
        maps.append(map_to_source(np.abs(image[0] - centre), images[number].shape, rule))
        masks.append(np.zeros((ROWS, COLUMNS), bool))
        masks[-1][SPOT] = number >= 32
    expected = localisation_metrics(maps, masks)
    found = line["localisation"]
    assert (expected["n_images"], len(maps)) == (6, 14)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found["brightest_place_hit_rate"] == 1 and found["centre_hit_rate"] == 0


def test_a_detectors_maps_are_localised_as_in_an_evaluation(run, marked):
    config = replace(run.config, objective="rd")
    line = measure(replace(run, method="rd", config=config), read_material(marked, config), "cpu")
    expected = Detector.fit(marked, config, device="cpu").evaluate(marked).metrics
    assert line["localisation"] == pytest.approx(expected["localisation"], abs=1e-4)
    for figure in ("sensitivity", "false_alarm_rate"):
        assert line["by_pooling"]["own"][figure] == pytest.approx(expected[figure])
        assert figure in line["by_pooling"]["mean"]


def test_every_pooling_has_a_threshold_of_its_own(run, marked):
    material = read_material(marked, run.config)
    line = measure(run, material, "cpu")
    top = line["by_pooling"]["top"]
    # the spots are far brighter than any normal; a mean over the image is no match for them
    assert top["sensitivity"] == 1 and top["false_alarm_rate"] < 1
    assert line["by_pooling"]["own"]["sensitivity"] < 1
    assert line["by_pooling"]["own"]["sensitivity"] == line["metrics"]["sensitivity"]


def test_both_promises_of_the_rate_are_told(run, marked):
    by_group, by_image = (
        measure(replace(run, config=config), read_material(marked, config), "cpu")["by_pooling"]
        for config in (run.config, replace(run.config, promise="image"))
    )
    for pooling, figures in by_group.items():
        for name in ("sensitivity", "false_alarm_rate"):
            assert figures[f"{name}_by_image"] == by_image[pooling][name]
            assert f"{name}_by_image" not in by_image[pooling]


@pytest.mark.parametrize("limit", [2**30, 0])
def test_maps_lie_on_the_disk_where_memory_is_short(run, marked, limit):
    material = read_material(marked, run.config)
    test, rule = material.test, material.prepared.preprocessing
    places = Places(test, rule, limit)
    maps = torch.from_numpy(test.stack.images[:, 0])
    places.keep(0, maps[:4])
    places.keep(4, maps[4:])
    assert isinstance(places._maps, np.memmap) == (limit == 0)
    assert places.figures()["pointing_hit_rate"] == 1
    assert places._maps.shape == (14, 64, 64)


def test_nothing_is_kept_of_a_set_without_marks(run, marked):
    material = read_material(marked, run.config)
    bare = tuple(replace(r, mask=None, boxes=()) for r in material.test.records)
    places = Places(Labelled(bare, material.test.stack), material.prepared.preprocessing, 2**30)
    places.keep(0, torch.from_numpy(material.test.stack.images[:, 0]))
    assert places._maps is None and places.figures() == {}
