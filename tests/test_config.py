"""Settings: what is refused and in which words, and the way through JSON and back."""

import dataclasses
import json

import pytest

from scrd.config import Config, ConfigError, from_dict
from scrd.synthesis.settings import NoiseSettings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective": "best"}, ["'best'", "rd", "released", "scrd"]),
        ({"image_size": 100}, ["100", "multiple of 32"]),
        ({"image_size": 32}, ["32", "at least 64"]),
        ({"resize": "crop"}, ["'crop'", "stretch", "letterbox"]),
        ({"channels": "cmyk"}, ["'cmyk'", "grey", "rgb"]),
        ({"pooling": "median"}, ["'median'", "excess", "mean", "top", "max"]),
        ({"acquisition": "no"}, ["'no'", "auto", "adjust", "ignore"]),
        ({"schedule": "linear"}, ["'linear'", "cosine", "constant"]),
        ({"window": (5.0, 5.0)}, ["window", "low < high", "5.0"]),
        ({"window": (float("nan"), 1.0)}, ["window"]),
        ({"window": "best"}, ["window", "image", "data", "low < high", "best"]),
        ({"iterations": 0}, ["iterations", "at least 1"]),
        ({"checkpoint_every": 0}, ["checkpoint_every", "at least 1"]),
        ({"batch_size": 1}, ["batch_size", "at least 2"]),
        ({"held_out": 0.0}, ["held_out", "between 0 and 1"]),
        ({"held_out": 1.0}, ["held_out"]),
        ({"false_alarm_rate": 0.0}, ["false_alarm_rate"]),
        ({"false_alarm_rate": float("nan")}, ["false_alarm_rate"]),
        ({"learning_rate": 0.0}, ["learning_rate", "positive"]),
        ({"seed": -1}, ["seed"]),
    ],
)
def test_a_setting_without_meaning_is_refused_by_name(settings, words):
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    for word in words:
        assert word in str(caught.value)


def test_the_defaults_are_the_papers_but_for_the_learning_rate():
    config = Config()
    assert (config.image_size, config.iterations, config.batch_size) == (256, 4000, 16)
    assert config.betas == (0.5, 0.999)
    noise = config.noise
    assert (noise.octaves, noise.persistence, noise.strength) == (6, 0.6, 0.2)
    assert (noise.min_side, noise.max_side_fraction) == (10, 1 / 8)


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
    text = json.dumps(config.to_dict(), allow_nan=False)
    again = from_dict(Config, json.loads(text))
    assert again == config
    assert isinstance(again.noise, NoiseSettings)
    assert isinstance(again.betas, tuple)


def test_an_older_file_without_a_field_takes_the_default():
    assert from_dict(Config, {"seed": 3}) == Config(seed=3)


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(ConfigError, match="Config has no field colour, shape"):
        from_dict(Config, {"shape": 1, "colour": 2, "seed": 0})
    with pytest.raises(ConfigError, match="NoiseSettings has no field hue"):
        from_dict(Config, {"noise": {"hue": 1}})

    @dataclasses.dataclass(frozen=True)
    class Pair:
        left: int
        right: int

    with pytest.raises(ConfigError, match="Pair.*right"):
        from_dict(Pair, {"left": 1})


@pytest.mark.parametrize("values", [{"image_size": "large"}, {"noise": {"strength": -1}}])
def test_values_that_make_no_sense_are_config_errors_too(values):
    with pytest.raises(ConfigError):
        from_dict(Config, values)
