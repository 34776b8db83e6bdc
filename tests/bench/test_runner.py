"""Runs: what a line holds, and that none is done twice."""

import json
import multiprocessing
import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scrd import baselines
from scrd.baselines.flows import FastFlow
from scrd.bench import measure as measuring
from scrd.bench.material import read_material
from scrd.bench.measure import measure
from scrd.bench.results import read_results, run_lock
from scrd.bench.runner import run_missing
from scrd.bench.suite import POOLED
from scrd.bench.suite_file import read_suite
from scrd.data.manifest import read_manifest
from scrd.data.reading import read_image
from scrd.detector import Detector
from scrd.errors import ManifestError
from scrd.scoring.calibration import threshold_at
from synthetic_volumes import SLICES, head, write_nifti


def quiet(_):
    pass


@pytest.fixture
def runs(suite_file):
    return read_suite(str(suite_file)).runs("small")


def keys(path):
    return [json.dumps(line["key"], sort_keys=True) for line in read_results(path).lines]


def test_all_runs_once_and_no_more_the_next_time(runs, data, tmp_path, methods):
    said = []
    results = tmp_path / "r.jsonl"
    assert run_missing(runs, data, results, device="cpu", say=said.append) == []
    assert len(set(keys(results))) == len(keys(results)) == len(runs) == 8
    assert len(methods) == 8
    assert len(said) == 8
    auroc = read_results(results).lines[0]["metrics"]["auroc"]
    assert f"[1/8] brain-tumor-mri, bright, seed 0: AUROC bright {100 * auroc:.1f} (" in said[0]
    before = results.read_bytes()
    assert run_missing(runs, data, results, device="cpu", say=said.append) == []
    assert results.read_bytes() == before
    assert len(methods) == len(said) == 8


def test_an_interruption_costs_the_run_at_work_and_no_other(
    runs, data, tmp_path, monkeypatch, methods
):
    results = tmp_path / "r.jsonl"
    real = measuring.train_method

    def interrupted(run, *rest):
        if len(methods) == 3:
            raise KeyboardInterrupt
        return real(run, *rest)

    monkeypatch.setattr(measuring, "train_method", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_missing(runs, data, results, device="cpu", say=quiet)
    done = keys(results)
    assert len(done) == 3
    # killed while it wrote the third
    results.write_bytes(results.read_bytes()[:-20])
    monkeypatch.setattr(measuring, "train_method", real)
    said = []
    run_missing(runs, data, results, device="cpu", say=said.append)
    assert "line 3 is damaged" in said[0]
    assert len(methods) == 3 + (8 - 2)
    assert len(set(keys(results))) == len(keys(results)) == 8
    assert keys(results)[:3] == done


def test_a_longer_suite_adds_up(runs, data, tmp_path, methods):
    results = tmp_path / "r.jsonl"
    run_missing(runs[:3], data, results, device="cpu", say=quiet)
    run_missing(runs[2:6], data, results, device="cpu", say=quiet)
    assert len(methods) == len(set(keys(results))) == 6


def test_every_run_has_the_images_of_its_own_data_set_and_seed(runs, data, tmp_path):
    run_missing(runs, data, tmp_path / "r.jsonl", device="cpu", say=quiet)
    for run, line in zip(runs, read_results(tmp_path / "r.jsonl").lines, strict=True):
        alone = measure(run, read_material(data / run.data, run.config), "cpu")
        assert (line["metrics"], line["curves"]) == (alone["metrics"], alone["curves"])


def test_a_failed_run_is_told_and_the_others_go_on(suite_file, data, tmp_path, capsys):
    text = suite_file.read_text().replace('label = "later"', 'label = "b"\nmethod = "breaking"')
    suite_file.write_text(text)
    runs = read_suite(str(suite_file)).runs("small", sets=["skin"], seeds=[0])
    problems = run_missing(runs, data, tmp_path / "r.jsonl", device="cpu", say=quiet)
    assert problems == ["[3/3] skin, b, seed 0: RuntimeError: no weights today"]
    assert "Traceback" in capsys.readouterr().err  # not foreseen, so it can be looked into
    assert len(keys(tmp_path / "r.jsonl")) == 2


def test_an_absent_extra_fails_its_own_runs_with_the_cause(
    suite_file, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(baselines.BASELINES, "fastflow", FastFlow)
    for module in [m for m in sys.modules if m.startswith("anomalib.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    text = suite_file.read_text()
    first = '[[row]]\nlabel = "f"\nmethod = "fastflow"\n\n[[row]]\nlabel = "bright"\n'
    suite_file.write_text(text.replace('[[row]]\nlabel = "bright"\n', first))
    runs = read_suite(str(suite_file)).runs("small", sets=["skin"], seeds=[0])
    (problem,) = run_missing(runs, data, tmp_path / "r.jsonl", device="cpu", say=quiet)
    assert problem.startswith("[1/3] skin, f, seed 0: ScrdError: ")
    assert "pip install 'scrd[anomalib]'" in problem
    assert "Traceback" not in capsys.readouterr().err
    assert len(keys(tmp_path / "r.jsonl")) == 2


def test_a_missing_data_set_is_refused_before_any_run(runs, data, tmp_path, methods):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "skin").symlink_to(data / "skin")
    with pytest.raises(ManifestError, match="brain-tumor-mri"):
        run_missing(runs, tmp_path / "data", tmp_path / "r.jsonl", device="cpu", say=quiet)
    assert not methods


def _work(runs, data, results, log):
    def note(text):
        with open(log, "a") as f:
            f.write(text + "\n")

    time.sleep(0.05)
    run_missing(runs, data, results, device="cpu", say=note)


def test_two_processes_share_the_work(runs, data, tmp_path):
    results, logs = tmp_path / "r.jsonl", [tmp_path / "a.log", tmp_path / "b.log"]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(runs, data, results, log)) for log in logs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(set(keys(results))) == len(keys(results)) == 8
    counts = [len(log.read_text().splitlines()) for log in logs]
    assert sum(counts) == 8
    assert min(counts) >= 1


def test_a_run_of_another_process_is_waited_for_and_taken_over_if_that_ends(
    runs, data, tmp_path, methods
):
    results = tmp_path / "r.jsonl"
    key = runs[0].key(read_manifest(data / runs[0].data).fingerprint)
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()

    def hold():
        lock = run_lock(results, key)
        lock.acquire()
        held.set()
        release.wait(30)
        os._exit(9)  # killed, without a result

    other = context.Process(target=hold)
    other.start()
    assert held.wait(30)
    order = []

    def say(text):
        order.append(text)
        if len(order) == 2:
            release.set()

    run_missing(runs[:3], data, results, device="cpu", say=say)
    other.join()
    assert [text[:5] for text in order] == ["[2/3]", "[3/3]", "[1/3]"]
    assert len(set(keys(results))) == 3


# ------------------------------------------------------------------------------------ one line


@pytest.fixture
def line(runs, data):
    material = read_material(data / runs[0].data, runs[0].config)
    return measure(runs[0], material, "cpu")


def test_a_line_says_what_tables_need(line, data):
    json.dumps(line, allow_nan=False)
    assert str(data) not in json.dumps(line)
    metrics = line["metrics"]
    assert (metrics["n_normal"], metrics["n_abnormal"], metrics["n_failed"]) == (8, 7, 0)
    assert metrics["auroc_by_pooling"].keys() == {"own", "areas", "mean", "top", "max"}
    assert metrics["auroc_by_pooling"]["own"] == metrics["auroc"]
    assert line["by_pooling"]["top"]["auroc"] == metrics["auroc_by_pooling"]["top"]
    assert line["normals"]["trained"] + line["normals"]["calibrated"] == 24
    cost = line["cost"]
    assert (cost["parameters_trained"], cost["parameters"], cost["bytes"]) == (3, 3, 4 * 4)
    assert cost["seconds_per_image"] > 0 and cost["fit_seconds"] >= 0
    assert cost["peak_memory_fit"] > 1e7 and cost["peak_memory_score"] > 1e7
    assert line["machine"]["device"] and line["machine"]["threads"] >= 1
    assert line["versions"]["torch"] and line["finished"].endswith("+00:00")
    assert "scale_weights" not in line


def test_the_scores_are_those_of_the_method(line, runs, data):
    folder = data / runs[0].data / "test"
    means = {
        kind: [read_image(p).mean() for p in sorted((folder / kind).iterdir())]
        for kind in ("normal", "spot")
    }
    material = read_material(data / runs[0].data, runs[0].config)
    rule = material.prepared.preprocessing.intensity
    centre = float(material.prepared.fitting.images.mean())
    scores = {
        kind: np.abs((np.array(m) - rule.low) / (rule.high - rule.low) - centre)
        for kind, m in means.items()
    }
    labels = [0] * 8 + [1] * 7
    expected = roc_auc_score(labels, np.concatenate([scores["normal"], scores["spot"]]))
    assert line["metrics"]["auroc"] == pytest.approx(expected, abs=1e-5)
    calibrating = material.prepared.calibrating.images
    normal = np.abs(calibrating.mean(axis=(1, 2, 3)) - centre).tolist()
    threshold = threshold_at(normal, range(len(normal)), 0.3)
    assert line["metrics"]["threshold"] == pytest.approx(threshold, rel=1e-4)
    assert line["metrics"]["false_alarm_rate"] == (scores["normal"] >= threshold).mean()


def test_curves_are_those_of_the_scores(line):
    curves = line["curves"]
    assert len(curves["roc"]) == 51
    assert np.trapezoid(curves["roc"], dx=0.02) == pytest.approx(line["metrics"]["auroc"], abs=0.05)
    histogram = curves["histogram"]
    assert (sum(histogram["normal"]), sum(histogram["abnormal"])) == (8, 7)
    assert len(histogram["normal"]) == 40 and histogram["low"] < histogram["high"]


def test_boxes_beside_the_data_set_give_localisation(line, runs, data):
    assert line["localisation"]["n_images"] == 4
    assert line["localisation"]["pointing_hit_rate"] == 1  # the spot is where the map is hottest
    assert line["localisation"]["brightest_place_hit_rate"] == 1
    assert line["localisation"]["centre_hit_rate"] == 0
    skin, corner = runs[2], runs[1]
    assert (skin.data, corner.method) == ("skin", "corner")
    material = read_material(data / "skin", skin.config)
    assert "localisation" not in measure(skin, material, "cpu")
    material = read_material(data / corner.data, corner.config)
    found = measure(corner, material, "cpu")  # without maps
    assert "localisation" not in found
    assert found["metrics"]["auroc_by_pooling"].keys() == {"own"}


@pytest.mark.parametrize(("method", "terms"), [("scrd", 2), ("srd", 3)])
def test_a_detector_is_measured_like_a_baseline(suite_file, data, method, terms):
    text = suite_file.read_text().replace('label = "later"', f'label = "o"\nmethod = "{method}"')
    suite_file.write_text(text)
    (run,) = read_suite(str(suite_file)).runs(
        "small", rows=["o"], sets=["brain-tumor-mri"], seeds=[0]
    )
    material = read_material(data / run.data, run.config)
    line = measure(run, material, "cpu")
    json.dumps(line, allow_nan=False)
    pooled = line["metrics"]["auroc_by_pooling"]
    excess = {name for name in POOLED if name.startswith("excess")}
    assert pooled.keys() == set(POOLED) - (excess if method == "scrd" else set())
    assert pooled["own"] == pooled[line["pooling"]]
    assert sum(line["scale_weights"]) == pytest.approx(1, abs=1e-4)
    weights = np.array(line["curves"]["scale_weights"])
    assert weights.shape == (terms, 20) and (weights.sum(axis=1) == 15).all()
    assert 0 < line["cost"]["parameters_trained"] < line["cost"]["parameters"]
    assert line["cost"]["bytes"] >= 4 * line["cost"]["parameters"]
    assert line["localisation"]["n_images"] == 4
    detector = Detector.fit(data / run.data, run.config, device="cpu")
    expected = detector.evaluate(data / run.data).metrics
    assert line["metrics"]["auroc"] == pytest.approx(expected["auroc"], abs=1e-5)
    boxes = detector.evaluate(data / "brain-tumor-boxes").metrics["localisation"]
    assert line["localisation"] == pytest.approx(boxes, abs=1e-4)


def test_slices_of_volumes_are_measured_like_any_image(runs, tmp_path):
    for i in range(12):
        write_nifti(tmp_path / "heads" / "train" / "normal" / f"{i}.nii.gz", head(i))
    write_nifti(tmp_path / "heads" / "test" / "normal" / "0.nii.gz", head(20))
    write_nifti(tmp_path / "heads" / "test" / "lesion" / "0.nii.gz", head(21, lesion=True))
    material = read_material(tmp_path / "heads", replace(runs[0].config, window="auto"))
    assert len(material.test.stack.index) == 2 * SLICES
    assert material.test.stack.failures == ()
