"""The presets: what was printed, what was released, and what is refused."""

import dataclasses
import re

import pytest
from typer.testing import CliRunner

from scrd.cli import app
from scrd.config import Config
from scrd.errors import ConfigError
from scrd.presets.files import bundled_presets, read_preset
from scrd.synthesis.settings import NoiseSettings

COMMON = {
    "teacher": "wide_resnet50_2",
    "weights": None,
    "image_size": 256,
    "resize": "stretch",
    "window": "data",
    "batch_size": 16,
    "schedule": "constant",
    "betas": (0.5, 0.999),
    "precision": "32-true",
    "held_out": 0.0,
}
# section 3.1.3 and Algorithm 1 of the paper
PAPER = {
    "objective": "paper",
    "iterations": 4000,
    "learning_rate": 1e-3,
    "noise": NoiseSettings("simplex", 0.2, 6, 0.6, 10, 1 / 8, "fresh"),
    "noisy_statistics": False,
    "pooling": "mean",
    "smoothing": 0.0,
}
# train_rsna.py and utils.py of the authors' code
RELEASED = {
    "objective": "released",
    "iterations": 40000,
    "learning_rate": 1e-3,
    "noise": NoiseSettings("simplex", 0.2, 6, 0.6, 10, 1 / 8, "fixed"),
    "noisy_statistics": True,
    "pooling": "mean",
    "smoothing": 4.0,
}
# section 4 of Deng and Li (CVPR 2022), main.py and test.py of their code
RD4AD = {
    "objective": "rd",
    "iterations": 3000,
    "learning_rate": 5e-3,
    "noisy_statistics": False,
    "pooling": "max",
    "smoothing": 4.0,
}
PRINTED = {"paper": PAPER, "released": RELEASED, "rd4ad": RD4AD}


@pytest.mark.parametrize("name", PRINTED)
def test_a_preset_is_what_was_published(name):
    preset = read_preset(name)
    config = preset.config()
    expected = {**COMMON, **PRINTED[name]}
    assert {field: getattr(config, field) for field in expected} == expected
    # everything else is a default, and none that acts on this training is silent in the file
    assert config == dataclasses.replace(Config(), **expected)
    silent = set(expected) - set(preset.settings) - {"weights"}
    assert {field: expected[field] for field in silent}.items() <= vars(Config()).items()
    assert preset.name == name and "CVPR" in preset.text or "SCRD" in preset.text


def test_there_are_no_others():
    assert bundled_presets() == sorted(PRINTED)


def test_settings_win_and_are_told_apart():
    preset = read_preset("paper")
    config = preset.config(iterations=10, noise={"strength": 0.4}, seed=3)
    assert (config.iterations, config.noise.strength, config.noise.octaves) == (10, 0.4, 6)
    assert config.objective == "paper"
    assert preset.changed(config) == ["noise", "iterations"]
    assert preset.changed(preset.config(seed=7, checkpoint_every=5)) == []


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="'papers': choose one of paper, rd4ad, released"):
        read_preset("papers")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text = ", ["TOML"]),
        ('text = "mine"', ["a text and a table"]),
        ('text = "mine"\nlr = 1\n[settings]', ["a text and a table"]),
        ('text = "mine"\n[settings]\ndepth = 3', ["depth"]),
        ('text = "mine"\n[settings]\nimage_size = 65', ["image size"]),
        ('text = "mine"\n[settings.noise]\nhue = 1', ["hue"]),
        ('text = "mine"\n[settings]\nnoise = 3', ["noise"]),
    ],
)
def test_a_file_is_read_and_what_is_wrong_with_it_told(tmp_path, content, words):
    path = tmp_path / "mine.toml"
    path.write_text('text = "mine"\n[settings]\niterations = 5', encoding="utf-8")
    preset = read_preset(str(path))
    assert (preset.name, preset.config().iterations) == ("mine", 5)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_preset(str(path))
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_the_command_names_them():
    told = re.sub(r"[\s│]+", " ", CliRunner().invoke(app, ["train", "--help"]).output)
    assert "--preset" in told and "paper, rd4ad, released" in told


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], {}),
        (
            ["--noise-strength", "0.4", "--window", "image", "--held-out", "0.25"],
            {"noise": NoiseSettings(strength=0.4), "window": "image", "held_out": 0.25},
        ),
        # what is typed wins even where it is the default
        (["--objective", "scrd", "--pooling", "areas"], {"objective": "scrd", "pooling": "areas"}),
    ],
)
def test_options_beside_it_win(tmp_path, monkeypatch, options, changed):
    given = {}

    def fit(manifest, config, *, preset, **_):
        given.update(config=config, preset=preset)
        raise ConfigError("enough")

    monkeypatch.setattr("scrd.detector.Detector.fit", fit)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"")
    words = ["train", str(tmp_path / "data"), "--out", str(tmp_path / "m"), "--preset", "paper"]
    result = CliRunner().invoke(app, [*words, *options])
    assert "enough" in result.output
    assert given["preset"].name == "paper"
    assert given["config"] == dataclasses.replace(read_preset("paper").config(), **changed)


def test_an_unknown_name_is_refused_by_the_command(tmp_path):
    words = ["train", str(tmp_path), "--out", str(tmp_path / "m"), "--preset", "papers"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "paper, rd4ad, released" in re.sub(r"\s+", " ", result.output)
