"""The checkpoint that tests best, against trainings that end where it looks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scrd.bench.material import read_material
from scrd.bench.measure import measure
from scrd.bench.selection import BestOnTest
from scrd.bench.suite import Run
from scrd.config import Config
from scrd.detector import Detector

CONFIG = Config(
    objective="rd",
    image_size=64,
    iterations=4,
    batch_size=4,
    schedule="constant",
    window="data",
    pooling="mean",
    weights="random",
    false_alarm_rate=0.3,
)


@pytest.fixture(scope="module")
def material(data):
    return read_material(data / "skin", CONFIG)


def trained_for(material, iterations):
    config = replace(CONFIG, iterations=iterations)
    return measure(Run("skin", "rd", config), material, "cpu")


def test_it_is_the_best_of_trainings_that_end_there(material):
    selected = measure(Run("skin", "rd", CONFIG, select="test"), material, "cpu")
    told = selected["selection"]
    # at a constant rate the first steps of a long training are those of a short one
    apart = [trained_for(material, n)["metrics"]["auroc"] for n in (1, 2, 3, 4)]
    assert told["iterations"] == [1, 2, 3, 4]
    assert told["auroc"] == pytest.approx(apart, abs=1e-5)
    assert told["iteration"] == 1 + int(np.argmax(apart))
    assert selected["metrics"]["auroc"] == pytest.approx(max(apart), abs=1e-5)


def test_watching_changes_no_step(material):
    seen = BestOnTest(material.test, material.prepared.preprocessing, 4, "mean")
    states = []

    def watch(done, model):
        assert model.training == (done > 0) or done == 0
        seen(done, model)
        if done == 3:
            states.append({k: v.clone() for k, v in model.student.state_dict().items()})

    Detector.fit(material.prepared, CONFIG, device="cpu", watch=watch)
    watched = states.pop()

    def only_look(done, model):
        if done == 3:
            states.append({k: v.clone() for k, v in model.student.state_dict().items()})

    Detector.fit(material.prepared, CONFIG, device="cpu", watch=only_look)
    assert all(torch.equal(watched[k], v) for k, v in states[0].items())


def test_the_last_checkpoint_is_compared_and_there_are_twenty_at_most(material):
    seen = BestOnTest(material.test, material.prepared.preprocessing, 1001, "mean")
    assert len(seen._due) == 20 and max(seen._due) == 1001 and min(seen._due) == 50
