"""Dataclasses through JSON and back."""

import dataclasses
import json
import math

import pytest

from scrd.config import Config, ConfigError
from scrd.scoring.calibration import Calibration, Level
from scrd.storage.plain import from_plain, to_plain
from scrd.synthesis.settings import NoiseSettings


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(window="data", acquisition="ignore"),
        Config(
            window=(-100.5, 300.0),
            noise=NoiseSettings(kind="gaussian", strength=0.1, octaves=3, min_side=4),
            betas=(0.9, 0.99),
            weights="random",
            pooling="top",
            resize="letterbox",
        ),
    ],
)
def test_json_gives_back_the_same_settings(config):
    text = json.dumps(to_plain(config), allow_nan=False)
    again = from_plain(Config, json.loads(text))
    assert again == config
    assert isinstance(again.noise, NoiseSettings)
    assert isinstance(again.betas, tuple)


def test_an_older_file_without_a_field_takes_the_default():
    assert from_plain(Config, {"seed": 3}) == Config(seed=3)


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(ConfigError, match="Config has no field colour, shape"):
        from_plain(Config, {"shape": 1, "colour": 2, "seed": 0})
    with pytest.raises(ConfigError, match="NoiseSettings has no field hue"):
        from_plain(Config, {"noise": {"hue": 1}})

    @dataclasses.dataclass(frozen=True)
    class Pair:
        left: int
        right: int

    with pytest.raises(ConfigError, match="Pair.*right"):
        from_plain(Pair, {"left": 1})


@pytest.mark.parametrize("values", [{"image_size": "large"}, {"noise": {"strength": -1}}])
def test_values_that_make_no_sense_are_config_errors_too(values):
    with pytest.raises(ConfigError):
        from_plain(Config, values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image_size": 64.5}, "int @ Config.image_size"),
        ({"seed": True}, "int @ Config.seed"),
        ({"resize": "crop"}, "not one of stretch, letterbox @ Config.resize"),
        ({"window": "best"}, "a window is auto, image"),
        ({"window": [1, 2, 3]}, "@ Config.window"),
    ],
)
def test_a_wrong_type_is_refused_with_its_place(values, words):
    with pytest.raises(ConfigError, match=words):
        from_plain(Config, values)


def test_infinity_goes_through_json_as_null():
    calibration = Calibration(
        scores=(1.0, 2.5),
        groups=(0, 1),
        false_alarm_rate=0.05,
        threshold=math.inf,
        map_threshold=0.3,
        map_scale=(0.0, 1.0),
        pooling="top",
        series=Level((1.0,), (0,), 3),
    )
    text = json.dumps(to_plain(calibration), allow_nan=False)
    assert json.loads(text)["threshold"] is None
    assert from_plain(Calibration, json.loads(text)) == calibration
