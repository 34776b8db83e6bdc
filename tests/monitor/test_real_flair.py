"""A real model on real images: a new scanner is seen soon, and the old one raises no alarm."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from scrd import Config, Detector
from scrd.cli import app

WITHIN = 50
TRAINED = 40  # patients, of whom nearly three quarters calibrate; the other 46 are the stream


@pytest.fixture(scope="module")
def flair():
    """Patient → files of normal slices, in an order that was drawn."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SCRD_DATA", default)) / "lgg-flair"
    if not folder.is_dir():
        pytest.skip("the real data set lgg-flair is not here: set SCRD_DATA")
    patients = {}
    with open(folder / "split.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["class"] == "normal":
                patients.setdefault(row["group"], []).append(folder / row["path"])
    order = np.random.default_rng(0).permutation(list(patients))
    return {name: patients[name] for name in order}


@pytest.fixture(scope="module")
def model(flair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flair")
    with open(folder / "split.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "class", "split", "group"))
        for name in list(flair)[:TRAINED]:
            table.writerows((path, 0, "normal", "train", name) for path in flair[name])
    config = Config(image_size=128, iterations=30, objective="memory", held_out=0.7)
    Detector.fit(folder, config, device="cpu").save(folder / "model")
    return folder / "model"


def blurred(pixels):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)))


def gamma(pixels, exponent):
    return (255 * (pixels / 255) ** exponent).round().astype(np.uint8)


def windowed(pixels):
    """The lowest and the highest tenth of the range are cut off."""
    return (255 * ((pixels / 255 - 0.1) / 0.8).clip(0, 1)).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("scanner", "driver"),
    [
        (lambda pixels: pixels, None),
        (blurred, "sharpness"),
        (lambda pixels: gamma(pixels, 0.7), "brightness"),
        (lambda pixels: gamma(pixels, 1.5), "brightness"),
        (windowed, "brightness"),
    ],
    ids=["the same", "softer", "brighter", "darker", "another window"],
)
def test_a_new_scanner_is_caught_within_50_images(flair, model, tmp_path, scanner, driver):
    rng = np.random.default_rng(1)
    for i, name in enumerate(list(flair)[TRAINED:]):  # one slice a patient
        with Image.open(flair[name][rng.integers(len(flair[name]))]) as image:
            pixels = scanner(np.asarray(image.convert("L")))
        (tmp_path / "stream").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "stream" / f"{i:02}.png")
    scores, out = tmp_path / "scores", tmp_path / "out"
    run = CliRunner().invoke
    words = ["score", model, tmp_path / "stream", "--out", scores, "--no-overlays"]
    result = run(app, [str(w) for w in (*words, "--device", "cpu")])
    assert result.exit_code == 0, result.output
    result = run(app, [str(w) for w in ("monitor", model, scores, "--out", out)])
    found = json.loads((out / "monitor.json").read_text())
    assert 40 < found["counted"] <= WITHIN
    assert found["reference"]["images"] >= 25
    if driver is None:
        assert result.exit_code == 0, result.output
        assert found["alarms"] == []
        assert found["wealth"]["together"]["log10_highest"] < 0.5
    else:
        assert result.exit_code == 4, result.output
        assert found["alarms"][0]["image"] <= WITHIN
        assert found["alarms"][0]["driver"] == driver
