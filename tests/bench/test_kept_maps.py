"""Maps that are kept: which cases, in which unit, and what becomes of them."""

import numpy as np
import pytest
from PIL import Image

from scrd.bench.cases import SIDE, choose_cases
from scrd.bench.found import find
from scrd.bench.heatmaps import heatmaps
from scrd.bench.kept_maps import maps_file, maps_folder, rarity, read_maps, read_pictures
from scrd.bench.material import read_material
from scrd.bench.results import ResultsError, read_results
from scrd.bench.runner import run_missing
from scrd.bench.suite_file import read_suite


def test_rarity_is_that_of_a_loop_whatever_the_unit():
    rng = np.random.default_rng(0)
    normal, values = rng.normal(size=200), rng.normal(size=(3, 4)) * 2
    values[0, 0] = normal[5]  # a tie counts
    found = rarity(values, normal)
    for at in np.ndindex(values.shape):
        above = sum(n >= values[at] for n in normal)
        assert found[at] == pytest.approx(-np.log10((1 + above) / 201), abs=2e-3)
    assert found.dtype == np.float16
    assert (rarity(1e9 * np.exp(values), 1e9 * np.exp(normal)) == found).all()
    assert rarity(np.array([-99.0, 99.0]), normal) == pytest.approx([0, np.log10(201)], abs=2e-3)


def test_cases_stand_at_the_quartiles_of_lesion_size(tmp_path, suite_file):
    rng, sizes = np.random.default_rng(1), [30, 6, 22, 10, 14]
    for part, count in (("train", 24), ("test", 4)):
        for i in range(count):
            path = tmp_path / "skin" / part / "normal" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(path)
    boxes = ["path,x_min,y_min,x_max,y_max"]
    for i, side in enumerate(sizes):
        path = tmp_path / "skin" / "test" / "spot" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(path)
        boxes.append(f"test/spot/{i}.png,4,4,{4 + side},{4 + side}")
    config = read_suite(str(suite_file)).runs("small")[0].config
    by_name = read_material(tmp_path / "skin", config).cases
    assert not by_name.by_size
    assert [by_name.images.records[p].name for p in by_name.places] == [
        "test/spot/1.png",
        "test/spot/3.png",
    ]
    (tmp_path / "skin" / "boxes.csv").write_text("\n".join(boxes))
    material = read_material(tmp_path / "skin", config)
    assert material.cases == choose_cases(material.test) and material.cases.by_size
    chosen = [material.test.records[p].name for p in material.cases.places]
    assert chosen == ["test/spot/3.png", "test/spot/2.png"]  # 10 and 22 of 6, 10, 14, 22, 30
    for (image, marks), side in zip(material.cases.pictures(), (10, 22), strict=True):
        assert image.shape == marks.shape == (SIDE, SIDE)
        assert marks.mean() == pytest.approx((side / 64) ** 2, rel=0.2)


@pytest.fixture
def drawn_suite(suite_file):
    text = suite_file.read_text().replace('"roc", "histograms", "cost"', '"heatmaps"')
    suite_file.write_text(text)
    return read_suite(str(suite_file))


def test_maps_lie_beside_the_results_and_are_drawn(drawn_suite, data, tmp_path):
    results = tmp_path / "r.jsonl"
    runs = drawn_suite.runs("small", seeds=[0])
    assert run_missing(runs, data, results, device="cpu", say=lambda _: None) == []
    lines, folder = read_results(results).lines, maps_folder(results)
    assert folder == tmp_path / "r.maps"
    by_method = {(x["key"]["data"], x["key"]["method"]): x["key"] for x in lines}
    for name in ("brain-tumor-mri", "skin"):
        maps = read_maps(folder, by_method[name, "brightness"])
        assert [m.dtype for m in maps] == [np.float16] * 2
        assert [m.shape for m in maps] == [(SIDE, SIDE)] * 2
        # the spot is hotter than anything in a normal image, and the rest is not
        assert maps[0][20:44, 84:108].min() > maps[0][70:, :70].mean() + 1
        assert read_maps(folder, by_method[name, "corner"]) is None  # has no map
        pictures = read_pictures(folder, by_method[name, "brightness"])
        assert pictures.by_size == (name == "brain-tumor-mri")  # whose boxes lie beside it
        assert all(m.any() == pictures.by_size for m in pictures.marks)
    assert sum(p.stat().st_size for p in folder.iterdir()) < 400_000
    figure, absent = heatmaps(find(drawn_suite, "small", lines), [folder])
    assert "<svg" in figure.svg and figure.svg.count("<image") >= 3 * 4
    assert absent == "Not in the figure: no maps of corner."
    assert "of skin, whose lesions are not marked" in figure.caption
    again, _ = heatmaps(find(drawn_suite, "small", lines), [tmp_path, folder])
    assert again == figure


def test_without_maps_there_is_a_sentence_and_no_figure(drawn_suite, finished, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(finished, encoding="utf-8")
    found = find(drawn_suite, "small", read_results(path).lines)
    figure, absent = heatmaps(found, [maps_folder(path)])
    assert figure is None and "no maps lie beside the results file" in absent
    key = found.lines[0]["key"]
    maps_folder(path).mkdir()
    maps_file(maps_folder(path), key).write_bytes(b"no archive")
    with pytest.raises(ResultsError, match="no file of maps"):
        heatmaps(found, [maps_folder(path)])
