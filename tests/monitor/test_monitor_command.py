"""`scrd monitor`: what it says, leaves and refuses, and with which exit code it ends."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from scrd.cli import app

RNG = np.random.default_rng(0)
QUIET = RNG.normal(size=(150, 4))
DRIFTED = np.where(np.arange(150)[:, None] < 50, QUIET, QUIET + [0, 0, 0, -3])


def monitor(*words):
    return CliRunner().invoke(app, ["monitor", *(str(word) for word in words)])


def said(text):
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def model(make_model):
    return make_model()


def test_a_quiet_stream_ends_with_0(model, write_scores, tmp_path):
    folder = write_scores("weeks", model, QUIET, slices=3)
    result = monitor(model, folder)
    assert result.exit_code == 0, result.output
    words = said(result.stdout)
    assert "450 images with a score, 0 without; 150 count, one a study" in words
    assert "compared with 40 images that calibrate the model" in words
    assert "no alarm: the wealth of all together stayed below 20" in words
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "weeks"]


def test_drift_ends_with_4_and_is_told_with_place_and_driver(model, write_scores, tmp_path):
    first = write_scores("a", model, DRIFTED[:60])
    second = write_scores("b", model, DRIFTED[60:], manufacturer="HOOLI", width=128, height=128)
    result = monitor(model, first, second, "--out", tmp_path / "out")
    assert result.exit_code == 4, result.output
    words = said(result.stdout)
    found = json.loads((tmp_path / "out" / "monitor.json").read_text())
    alarm = found["alarms"][0]
    assert (alarm["wealth"], alarm["driver"], alarm["direction"]) == (20, "sharpness", "lower")
    assert 50 < alarm["image"] <= 100
    told = f"ALARM: wealth 20 at image {alarm['image']}, {alarm['path']}: sharpness is lower than"
    assert told in words
    assert "at most 1 of 20 streams" in words
    assert "shorter side" in words and "90 of 150" in words
    assert [one["beyond"] for one in found["beyond_training"]] == [90, 0]
    assert (found["images"], found["counted"], found["unscored"]) == (150, 150, 0)
    svg = ElementTree.fromstring((tmp_path / "out" / "monitor.svg").read_text())
    assert svg.tag.endswith("svg")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["monitor.json", "monitor.svg"]


def test_the_same_tables_give_the_same_files(model, write_scores, tmp_path):
    folder = write_scores("a", model, DRIFTED, slices=2)
    for name in ("one", "two"):
        monitor(model, folder, "--out", tmp_path / name)
    for name in ("monitor.json", "monitor.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_reference_takes_the_place_of_the_calibration_normals(model, write_scores):
    clinic = QUIET + [2, 0, 0, 0]
    stream = write_scores("stream", model, clinic[75:])
    weeks = [write_scores(f"week{i}", model, part) for i, part in enumerate([clinic[:40]])]
    weeks.append(write_scores("week9", model, clinic[40:75]))
    assert monitor(model, stream).exit_code == 4
    result = monitor(model, stream, "--reference", weeks[0], "--reference", weeks[1])
    assert result.exit_code == 0, result.output
    assert "compared with 75 images of the reference" in said(result.stdout)


def test_what_cannot_be_used_ends_with_2(model, make_model, write_scores, tmp_path):
    folder = write_scores("a", model, QUIET[:5])
    for words, told in (
        ((tmp_path / "nothing", folder), "nothing: no such model folder"),
        ((folder, folder), "a: no such model folder"),
        ((make_model("other", seed=3), folder), "scores of two models cannot be compared"),
        ((model, tmp_path / "absent"), "absent: cannot be read"),
        ((model, folder, "--reference", folder), "given twice"),
        ((model, folder, "--out", folder / "scores.csv"), "a file is there, not a folder"),
    ):
        result = monitor(*words)
        assert result.exit_code == 2, result.output
        assert told in said(result.stderr), result.stderr
        assert result.stdout == ""


def test_a_damaged_calibration_is_refused(model, write_scores):
    folder = write_scores("a", model, QUIET[:5])
    path = model / "calibration.json"
    path.write_text(path.read_text().replace("0.05", "0.01"))
    result = monitor(model, folder)
    assert result.exit_code == 2
    assert f"{path}: does not match the hash in config.json" in said(result.stderr)


def test_nothing_heavy_is_imported(model, write_scores, tmp_path):
    folder = write_scores("a", model, QUIET)
    program = (
        "import sys\n"
        f"sys.argv = ['scrd', 'monitor', {str(model)!r}, {str(folder)!r}, "
        f"'--out', {str(tmp_path / 'out')!r}]\n"
        "from scrd.cli import app\n"
        "try: app()\n"
        "finally: print('heavy:', [m for m in ('torch', 'timm', 'pydicom') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
