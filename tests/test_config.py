"""Settings: what is refused and in which words."""

from typing import get_args

import pytest

from scrd.config import _CONTRASTED, Config, ConfigError, ObjectiveName
from scrd.objectives import OBJECTIVES


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
        ({"held_out": -0.1}, ["held_out", "at least 0"]),
        ({"held_out": 1.0}, ["held_out"]),
        ({"promise": "patient"}, ["'patient'", "group", "image"]),
        ({"false_alarm_rate": 0.0}, ["false_alarm_rate"]),
        ({"false_alarm_rate": float("nan")}, ["false_alarm_rate"]),
        ({"learning_rate": 0.0}, ["learning_rate", "positive"]),
        ({"seed": -1}, ["seed"]),
        ({"noisy_statistics": True}, ["noisy_statistics", "scrd has", "paper", "released"]),
        ({"noisy_statistics": True, "objective": "rd"}, ["noisy_statistics", "rd has"]),
        ({"smoothing": -1.0}, ["smoothing", "-1.0"]),
        ({"smoothing": float("nan")}, ["smoothing"]),
        ({"smoothing": 4.0, "resize": "letterbox"}, ["smoothing", "stretch"]),
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


def test_noisy_statistics_go_with_every_contrast_against_a_student():
    contrasted = [name for name, o in OBJECTIVES.items() if o.contrastive and o.student]
    assert contrasted == list(_CONTRASTED)


def test_the_objectives_that_can_be_named_are_those_there_are():
    assert get_args(ObjectiveName) == tuple(OBJECTIVES)
