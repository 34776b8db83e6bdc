"""The folders that `scrd score` and `scrd eval` leave."""

import csv
import dataclasses
import json
import os
import re
import time
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scrd.config import Config
from scrd.data.source import Source
from scrd.detector import Detector
from scrd.errors import ImageError
from scrd.evaluation.test_set import evaluate
from scrd.outputs import eval_folder
from scrd.outputs.eval_folder import write_evaluation
from scrd.outputs.names import output_names
from scrd.outputs.pictures import write_overlay, write_raw_map
from scrd.outputs.score_folder import write_scores
from scrd.report.overlay import draw
from scrd.scoring.scorer import Scored


def scored(score, p_value, flag):
    return Scored(
        Source(Path("x")), score, p_value, flag, {}, (1.0,), np.zeros((1, 1), np.float32), (1, 1)
    )


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_scores_keep_order_precision_and_awkward_names(tmp_path):
    names = ["a,b.png", 'c"d.png', "é.png", "e.png"]
    error = ImageError("c.png", "broken: line one, and more")
    results = [scored(1 / 3, 0.05, True), error, scored(1e-9, 1.0, False), scored(2, 0.5, False)]
    write_scores(tmp_path / "new" / "scores.csv", names, results)
    found = rows(tmp_path / "new" / "scores.csv")
    assert found[0] == ["path", "score", "p_value", "flag"]
    assert [row[0] for row in found[1:]] == names
    assert float(found[1][1]) == 1 / 3  # to the last bit
    assert [row[3] for row in found[1:]] == ["1", "", "0", "0"]
    assert found[2] == [names[1], "", "", ""]
    errors = [["path", "reason"], [names[1], error.reason]]
    assert rows(tmp_path / "new" / "errors.csv") == errors
    write_scores(tmp_path / "new" / "scores.csv", names[:1], results[:1])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["scores.csv"]


def test_doubts_and_a_model_that_cannot_flag_are_told_beside_the_scores(tmp_path):
    doubtful = dataclasses.replace(scored(1, 0.5, False), doubts=("too dark", "too small"))
    results = [doubtful, scored(2, 0.5, False), ImageError("c", "broken")]
    write_scores(tmp_path / "scores.csv", ["a", "b", "c"], results, "it can flag nothing")
    assert rows(tmp_path / "warnings.csv") == [
        ["path", "reason"],
        ["model", "it can flag nothing"],
        ["a", "too dark"],
        ["a", "too small"],
    ]


def test_scores_of_a_stream_are_let_go_as_they_are_written(tmp_path):
    alive = []

    def stream():
        for i in range(20):
            result = scored(i, 0.5, False)
            alive.append(weakref.ref(result))
            yield result
            del result
            # the writer may still hold the one it has in hand
            assert sum(r() is not None for r in alive) <= 1

    write_scores(tmp_path / "scores.csv", [str(i) for i in range(20)], stream())
    assert len(rows(tmp_path / "scores.csv")) == 21


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["d/a.png"], ["a"]),
        (["d/a.png", "d/b.png"], ["a", "b"]),
        (["d/x/a.png", "d/y/a.png"], ["x/a", "y/a"]),
        (["d/a.png", "d/a.jpg", "d/b.jpg"], ["a.png", "a.jpg", "b"]),
        (["d/scan.1.png", "d/scan.2.png"], ["scan.1", "scan.2"]),
        ([], []),
    ],
)
def test_names_below_the_common_folder(tmp_path, files, names):
    found = output_names([Source(tmp_path / f) for f in files])
    assert [name.as_posix() for name in found] == names


def test_names_never_meet(tmp_path):
    files = [
        Source(tmp_path / name) for name in ("x.png.png", "x.png", "x.jpg", "y/x.png", "x.tif")
    ]
    assert len(set(output_names(files))) == len(files)


def test_links_keep_their_own_names(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "8f3a.png").write_bytes(b"")
    for name in ("first", "second"):
        (tmp_path / f"{name}.png").symlink_to(tmp_path / "store" / "8f3a.png")
    found = output_names([Source(tmp_path / f"{name}.png") for name in ("first", "second")])
    assert [name.as_posix() for name in found] == ["first", "second"]


def test_names_of_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = output_names([Source(Path("a.png")), Source(tmp_path / "sub" / "b.png")])
    assert [name.as_posix() for name in found] == ["a", "sub/b"]


def test_many_names_take_no_longer_than_reading_them():
    files = [Source(Path(f"/data/{i % 100}/{i}.png")) for i in range(4000)]
    start = time.perf_counter()
    assert len(set(output_names(files))) == 4000
    assert time.perf_counter() - start < 1.5


def picture(rng, path, spot=False, size=(64, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = 90 + rng.normal(0, 6, size)
    if spot:
        image[8:24, 8:24] = 230
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for folder, count in (("train/normal", 30), ("test/normal", 5), ("test/tumour", 7)):
        for i in range(count):
            size = (64, 64) if folder.startswith("train") else (80, 50)
            picture(rng, root / folder / f"{i}.png", "tumour" in folder, size)
    (root / "test" / "tumour" / "9.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def detector(tree):
    config = Config(image_size=64, batch_size=4, iterations=10, false_alarm_rate=0.2, pooling="top")
    return Detector.fit(tree, config, device="cpu")


@pytest.fixture(scope="module")
def evaluation(detector, tree):
    return evaluate(detector, tree)


def test_overlay_and_raw_map_at_the_source_size(detector, evaluation, tmp_path):
    case = evaluation.scored[0]
    write_raw_map(detector, case, tmp_path / "maps" / "a.npy")
    found = np.load(tmp_path / "maps" / "a.npy", allow_pickle=False)
    assert found.shape == (80, 50)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, detector.source_map(case))
    write_overlay(detector, case, tmp_path / "overlays" / "a.jpg", "a")
    with Image.open(tmp_path / "overlays" / "a.jpg") as overlay:
        assert overlay.format == "JPEG"
        assert overlay.size == draw(detector, case, "x").size
        assert overlay.width > 2 * overlay.height * 50 / 80 * 0.8  # two panels side by side
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["a.jpg", "a.npy"]


def test_an_interrupted_overlay_leaves_the_older_one(detector, evaluation, tmp_path, monkeypatch):
    target = tmp_path / "a.jpg"
    target.write_bytes(b"older")

    def fail(*_args):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", fail)
    for write in (partial(write_overlay, title="a"), write_raw_map):
        with pytest.raises(OSError, match="power cut"):
            write(detector, evaluation.scored[0], path=target)
    assert target.read_bytes() == b"older"


def test_an_evaluation_is_written_whole(detector, evaluation, tmp_path):
    write_evaluation(tmp_path, detector, evaluation, notes=["Mind <the> gap."])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".scrd-files",
        "errors.csv",
        "histogram.svg",
        "metrics.json",
        "report.html",
        "roc.svg",
        "scores.csv",
        "training.svg",
        "warnings.csv",
    ]
    # the spots are brighter than all that training showed
    doubted = [
        r.name for r, s in zip(evaluation.records, evaluation.scored, strict=True) if s.doubts
    ]
    assert sorted({row[0] for row in rows(tmp_path / "warnings.csv")[1:]}) == sorted(doubted)
    assert len(doubted) == evaluation.metrics["n_doubted"] == 7
    assert evaluation.metrics["can_flag"] is True

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text, parse_constant=refuse)["auroc"] == evaluation.metrics["auroc"]
    found = {row[0]: row[1:] for row in rows(tmp_path / "scores.csv")[1:]}
    assert len(found) == 13
    for record, case in zip(evaluation.records, evaluation.scored, strict=True):
        assert float(found[record.name][0]) == case.score
    page = (tmp_path / "report.html").read_text()
    assert "Mind &lt;the&gt; gap." in page
    assert "1 test images could not be read" in page
    assert page.count("data:image/jpeg") == 6 + 6 + 5 + 5  # six of the seven tumours, twice
    assert page.count("data:image/svg") == 3


def test_heat_maps_are_drawn_and_linked_where_they_are_wanted(
    detector, evaluation, tmp_path, monkeypatch
):
    def fails_once(detector, scored, path, title):
        if scored.path.name == "6.png":
            raise ZeroDivisionError
        write_overlay(detector, scored, path, title)

    monkeypatch.setattr(eval_folder, "write_overlay", fails_once)
    run = write_evaluation(tmp_path, detector, evaluation, overlays=True)
    page = (tmp_path / "report.html").read_text()
    found = re.search(r'id="cases-data">(.*?)</script>', page, re.S)[1]
    (level,) = json.loads(found)
    linked = {row[0]: row[6] for row in level["rows"]}
    assert len(linked) == level["total"] == 13  # the unreadable one has its row
    assert [name for name, path in linked.items() if path is None] == [
        "tumour/6.png",
        "tumour/9.png",
    ]
    listed = (tmp_path / ".scrd-files").read_text().splitlines()
    for path in filter(None, linked.values()):
        assert (tmp_path / path).is_file() and path in listed
    assert len(run.unwritten) == 1 and "heat map of test/tumour/6.png" in run.unwritten[0]


def test_a_test_set_of_one_class_is_reported_too(detector, tree, tmp_path):
    lines = [f"{tree}/test/normal/{i}.png,0,normal,test" for i in range(3)]
    (tmp_path / "split.csv").write_text("\n".join(["path,label,class,split", *lines]) + "\n")
    evaluation = evaluate(detector, tmp_path / "split.csv")
    write_evaluation(tmp_path / "out", detector, evaluation)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/svg") == 2  # no ROC curve
    assert "Abnormal, highest scores" not in page
    assert not (tmp_path / "out" / "errors.csv").exists()


def test_a_broken_mask_costs_no_row_and_no_image(detector, tree, tmp_path):
    (tmp_path / "mask.png").write_bytes(b"")
    lines = [f"{tree}/test/normal/{i}.png,0,normal,test," for i in range(3)]
    lines += [f"{tree}/test/tumour/{i}.png,1,tumour,test,mask.png" for i in range(2)]
    header = "path,label,class,split,mask"
    (tmp_path / "split.csv").write_text("\n".join([header, *lines]) + "\n")
    evaluation = evaluate(detector, tmp_path / "split.csv")
    write_evaluation(tmp_path / "out", detector, evaluation)
    found = rows(tmp_path / "out" / "scores.csv")[1:]
    assert [row[0] for row in found] == [line.split(",")[0] for line in lines]
    assert all(row[1] for row in found)
    assert "test images could not be read" not in (tmp_path / "out" / "report.html").read_text()


def test_a_confound_and_a_silent_detector_are_said_loudly(detector, evaluation, tmp_path):
    metrics = {**evaluation.metrics, "threshold": None, "confounds": {"mean": 0.04, "size": 0.6}}
    write_evaluation(tmp_path, detector, dataclasses.replace(evaluation, metrics=metrics))
    page = (tmp_path / "report.html").read_text()
    assert "One plain number, mean, already separates" in page and "0.96" in page
    assert "nothing is ever flagged" in page
    harmless = {**evaluation.metrics, "confounds": {"mean": 0.4, "size": 0.6}}
    write_evaluation(tmp_path, detector, dataclasses.replace(evaluation, metrics=harmless))
    assert "One plain number" not in (tmp_path / "report.html").read_text()


def test_the_curve_tells_of_scales_where_they_are_drawn(
    detector, evaluation, tmp_path, monkeypatch
):
    for weights in ((), (0.2, 0.3, 0.5)):
        log = [dataclasses.replace(entry, scale_weights=weights) for entry in detector.log]
        monkeypatch.setattr(detector, "log", log)
        write_evaluation(tmp_path, detector, evaluation)
        page = (tmp_path / "report.html").read_text()
        assert ("how much each scale counts" in page) == bool(weights)
