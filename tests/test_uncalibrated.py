"""A model that trained on all normals: scores and maps, and no p-value anywhere."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from scrd.cli import app
from scrd.config import Config
from scrd.data.preprocess import content_masks
from scrd.data.source import as_source
from scrd.detector import Detector
from scrd.errors import ConfigError
from scrd.model.scores import Scores
from scrd.scoring.promise import UNCALIBRATED
from scrd.scoring.scorer import Scored
from scrd.scoring.verdicts import judge
from scrd.storage.plain import from_plain
from scrd.synthesis.settings import NoiseSettings

OPTIONS = (
    *("--preset", "released", "--teacher", "efficientnet_lite0", "--weights", "random"),
    *("--image-size", 64, "--iterations", 3, "--batch-size", 4, "--device", "cpu"),
)


def scrd(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def said(result):
    return re.sub(r"\s+", " ", result.output)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for place, count, spot in (
        ("train/normal", 12, 0),
        ("test/normal", 20, 0),
        ("test/spot", 14, 90),
    ):
        (root / place).mkdir(parents=True)
        for i in range(count):
            image = 90 + rng.normal(0, 12) + rng.normal(0, 5, (64, 64))
            image[8:24, 40:56] += spot
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / place / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def training(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    result = scrd("train", data, "--out", folder, *OPTIONS)
    assert result.exit_code == 0, result.output
    return folder, said(result)


@pytest.fixture(scope="module")
def model(training):
    return training[0]


def test_training_says_so_and_takes_all_normals(training):
    model, output = training
    assert "trained on 12 normals, pooling mean, no threshold" in output
    assert output.count(UNCALIBRATED) == 2  # before the work and after it
    written = json.loads((model / "config.json").read_text())
    assert written["config"]["held_out"] == 0
    assert written["config"]["noise"]["field"] == "fixed"
    assert (written["config"]["smoothing"], written["config"]["noisy_statistics"]) == (4.0, True)
    normals = written["provenance"]["normals"]
    assert (normals["trained"], normals["calibrated"]) == (12, 0)
    assert written["provenance"]["preset"] == {
        "name": "released",
        "changed": ["teacher", "weights", "image_size", "iterations", "batch_size"],
    }
    calibration = json.loads((model / "calibration.json").read_text())
    assert (calibration["scores"], calibration["threshold"]) == ([], None)
    low, high = calibration["map_scale"]
    assert 0 <= low < high < 2
    card = re.sub(r"\s+", " ", (model / "card.md").read_text())
    assert "preset `released`, but for teacher, weights, image_size" in card
    assert "12 normal images trained it, all there are: none calibrated it." in card
    assert UNCALIBRATED in card and "Flags a score" not in card and "nan" not in card.lower()


def test_scores_have_empty_cells(model, data, tmp_path):
    result = scrd("score", model, data / "test", "--out", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "34 images: " in said(result) and UNCALIBRATED in said(result)
    header, *found = rows(tmp_path / "scores.csv")
    assert header == ["path", "score", "p_value", "flag"]
    assert len(found) == 34
    assert all(float(score) > 0 and (p, flag) == ("", "") for _, score, p, flag in found)
    assert ["model", UNCALIBRATED] in rows(tmp_path / "warnings.csv")
    assert len(list((tmp_path / "overlays").rglob("*.jpg"))) == 34
    page = (tmp_path / "index.html").read_text()
    assert UNCALIBRATED in page and "<dt>Flagged" not in page


def test_python_gets_none(model, data):
    detector = Detector.load(model, device="cpu")
    (one, two) = detector.score([data / "test/normal/0.png", data / "test/spot/0.png"])
    assert (one.p_value, one.flag, two.p_value, two.flag) == (None,) * 4
    assert one.score != two.score and one.input_map.shape == (64, 64)
    verdict = judge([one, two], detector.calibration.study, detector.calibration)
    assert (verdict.p_value, verdict.flag, verdict.how) == (None, None, "uncalibrated")
    assert verdict.score == max(one.score, two.score)
    with pytest.raises(ConfigError, match="that: this model gives scores and maps, but no p-val"):
        detector.calibration.require("that")


def test_maps_are_smoothed_after_loading(model, data):
    detector = Detector.load(model, device="cpu")
    (scored,) = detector.score(data / "test/spot/0.png")
    pixels = np.asarray(Image.open(data / "test/spot/0.png"), np.float32)[None, None] / 255
    content = content_masks([(64, 64)], detector.preprocessing)
    detector.model.smooth.matrix = None
    with torch.inference_mode():
        raw = Scores(detector.model)(torch.from_numpy(pixels), torch.from_numpy(content)).maps
    expected = gaussian_filter(raw[0].double().numpy(), 4.0, mode="reflect")
    np.testing.assert_allclose(scored.input_map, expected, atol=1e-5)
    assert np.abs(raw[0].numpy() - expected).max() > 1e-3


def test_evaluation_leaves_out_what_needs_a_threshold(model, data, tmp_path):
    result = scrd("eval", model, data, "--out", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert not {"sensitivity", "false_alarm_rate"} & set(metrics)
    assert 0 <= metrics["auroc"] <= 1 and metrics["threshold"] is None
    assert metrics["warnings"] == [UNCALIBRATED] and metrics["can_flag"] is False
    assert all(row[2:] == ["", ""] for row in rows(tmp_path / "scores.csv")[1:])
    report = (tmp_path / "report.html").read_text()
    assert UNCALIBRATED in report and "<dt>result</dt>" not in report


def test_what_decides_by_p_values_is_refused_at_the_start(model, data, tmp_path):
    (tmp_path / "in").mkdir()
    images = data / "test" / "spot"
    assert (
        scrd("score", model, images, "--out", tmp_path / "scored", "--no-overlays").exit_code == 0
    )
    folders = ("--folder", tmp_path / "in", "--out", tmp_path / "out", "--dicom-out", "")
    for words, what in (
        (("watch", model, *folders, "--once", "--state", tmp_path / "s"), "a watch decides"),
        (("monitor", model, tmp_path / "scored"), "drift is told"),
        (
            ("score", model, data / "test", "--out", tmp_path / "o", "--dicom-out", "sr"),
            "no DICOM object can be written",
        ),
    ):
        result = scrd(*words)
        assert result.exit_code == 2, result.output
        assert what in said(result) and UNCALIBRATED in said(result)
    assert not (tmp_path / "s").exists() and not list((tmp_path / "o").glob("*"))


def test_a_service_does_not_load_it(model, tmp_path):
    worker = pytest.importorskip("scrd.serve.worker", reason="needs the extra serve")
    told = []
    channel = SimpleNamespace(tell=lambda **message: told.append(message))
    worker.Worker(channel, tmp_path, "cpu", 4).load("m", str(model))
    assert told[0]["say"] == "not loaded"
    assert "a service answers with p-values" in told[0]["reason"]
    assert UNCALIBRATED in told[0]["reason"]


def test_an_export_is_the_same(model, data, tmp_path):
    for name in ("onnxscript", "onnx", "onnxruntime"):
        pytest.importorskip(name, reason="nothing can be exported")
    from scrd.export.make import export_model
    from scrd.export.runtime import ExportedScorer

    parity = export_model(model, tmp_path / "onnx", data)
    assert parity.images == 34 and parity.p_value_steps is None and parity.flags_changed == 0
    card = (tmp_path / "onnx" / "card.md").read_text()
    assert "there are none" in card and UNCALIBRATED in card
    (ours,) = Detector.load(model, device="cpu").score(data / "test/spot/0.png")
    (theirs,) = ExportedScorer.load(tmp_path / "onnx").score(data / "test/spot/0.png")
    assert isinstance(theirs, Scored) and theirs.p_value is None and theirs.flag is None
    np.testing.assert_allclose(theirs.input_map, ours.input_map, atol=1e-5)  # smoothed, both


def test_a_model_of_before_is_read(model, data, tmp_path):
    older = tmp_path / "older"
    older.mkdir()
    for file in Path(model).iterdir():
        (older / file.name).write_bytes(file.read_bytes())
    written = json.loads((older / "config.json").read_text())
    for name in ("smoothing", "noisy_statistics"):
        del written["config"][name]
    del written["config"]["noise"]["field"], written["provenance"]["preset"]
    (older / "config.json").write_text(json.dumps(written))
    detector = Detector.load(older, device="cpu")
    assert (detector.config.smoothing, detector.config.noisy_statistics) == (0.0, False)
    assert detector.config.noise.field == "fresh"
    assert detector.model.smooth.matrix is None
    assert isinstance(next(iter(detector.score(as_source(data / "test/normal/0.png")))), Scored)


def test_defaults_are_those_of_before():
    assert from_plain(Config, {}) == Config()
    assert (Config().smoothing, Config().noisy_statistics, NoiseSettings().field) == (
        0.0,
        False,
        "fresh",
    )
