"""The whole way from tables to alarms, on streams that changed and streams that did not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from scrd.data.contract import Contract
from scrd.data.covariates import Covariates
from scrd.monitor.drift import find_drift
from scrd.monitor.martingale import average, log_wealth
from scrd.monitor.p_values import online_p_values
from scrd.monitor.sample import QUANTITIES
from scrd.monitor.stream import Image, MonitorError, Stream, read_stream
from scrd.scoring.calibration import Acquisition, Calibration
from scrd.storage.known import Known, read_known

SHIFTS = {"score": 0, "brightness": 1, "contrast": 2, "sharpness": 3}


def stream_of(values, slices=1, rng=None, name="study"):
    """A study a row of ``values`` (N, 4), whose images are alike."""
    images = []
    for i, study in enumerate(values):
        for k in range(slices):
            score, *numbers = study + (0 if rng is None else 0.1 * rng.normal(size=4))
            covariates = Covariates(256, 256, None, None, None, *numbers)
            images.append(Image(f"{i}-{k}", score, False, f"{name} {i}", 0, covariates))
    return Stream((Path("scores.csv"),), tuple(images), 0)


@pytest.fixture
def known(make_model):
    return read_known(make_model())


def test_the_wealth_is_that_of_its_parts(known):
    rng = np.random.default_rng(0)
    found = find_drift(stream_of(rng.normal(size=(60, 4))), known)
    assert tuple(found.log_wealths) == QUANTITIES
    for i, name in enumerate(QUANTITIES):
        p_values = online_p_values(
            found.reference.values[name],
            found.counted.values[name],
            np.random.default_rng([0, 2 + i]),
        )
        np.testing.assert_allclose(found.log_wealths[name], log_wealth(p_values))
    np.testing.assert_allclose(found.log_wealth, average(list(found.log_wealths.values())))


def test_exchangeable_studies_raise_no_more_alarms_than_promised():
    """New calibrations and streams each time; images of a patient and a study are alike."""
    streams, alarms, rng = 300, 0, np.random.default_rng(1)
    ids = np.repeat(np.arange(20), 5)
    for _ in range(streams):
        values = rng.normal(size=(4, 20))[:, ids] + 0.1 * rng.normal(size=(4, 100))
        scores, *kept = (tuple(v) for v in values.tolist())
        calibration = Calibration(
            *(scores, tuple(ids.tolist()), 0.05, 9.0, 1.0, (0.0, 1.0), "areas"),
            acquisition=Acquisition(*kept),
        )
        known = Known(calibration, Contract(), "")
        found = find_drift(stream_of(rng.normal(size=(100, 4)), 5, rng), known)
        assert len(found.counted) == 100
        alarms += bool(found.alarms)
    assert alarms <= streams / 20 + 3 * np.sqrt(streams / 20)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("driver", QUANTITIES)
def test_a_change_of_any_quantity_is_caught_and_named(known, driver, direction):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(100, 4))
    values[50:, SHIFTS[driver]] += 3 * direction
    found = find_drift(stream_of(values), known)
    assert [alarm.level for alarm in found.alarms] == [20, 100]
    alarm = found.alarms[0]
    assert 50 <= alarm.at < 100
    assert alarm.driver == driver and alarm.path == f"{alarm.at}-0"
    assert alarm.higher == (direction > 0)


def test_what_comes_later_changes_nothing_of_what_came_before(known):
    values = np.random.default_rng(3).normal(size=(60, 4))
    rng = np.random.default_rng(4)
    whole = stream_of(values, 3, rng)
    part = Stream(whole.tables, whole.images[:90], 0)
    np.testing.assert_allclose(
        find_drift(whole, known).log_wealth[:30], find_drift(part, known).log_wealth
    )


def test_a_reference_of_the_site_takes_the_place_of_the_calibration_normals(known):
    """With disease in both, the stream is like its own first weeks, and not like normals."""
    rng = np.random.default_rng(5)
    weeks, stream = (rng.normal(size=(150, 4)) + [1.5, 0, 0, 0] for _ in range(2))
    assert find_drift(stream_of(stream), known).alarms
    reference = stream_of(weeks, name="week")
    found = find_drift(stream_of(stream), known, reference)
    assert not found.alarms
    assert found.accepted and len(found.reference) == 150
    assert find_drift(stream_of(stream + 2), known, reference).alarms


def test_a_study_of_the_reference_counts_there_alone(known):
    values = np.random.default_rng(5).normal(size=(60, 4))
    whole, weeks = stream_of(values, slices=2), stream_of(values[:40], slices=2)
    found = find_drift(whole, known, weeks)
    assert [image.study for image in found.counted.images] == [f"study {i}" for i in range(40, 60)]
    assert found.counted.repeated == 80
    with pytest.raises(MonitorError, match="every study is in the reference"):
        find_drift(weeks, known, whole)


def test_the_expected_rate_is_that_of_the_reference(known, make_model, write_scores):
    model = make_model("other")
    rng = np.random.default_rng(6)
    weeks, stream = (rng.normal(size=(200, 4)) + [1.5, 0, 0, 0] for _ in range(2))
    other = read_known(model)
    read = [
        read_stream([write_scores(name, model, values)], other.fingerprint)
        for name, values in (("weeks", weeks), ("stream", stream))
    ]
    found = find_drift(read[1], other, read[0])
    share = np.mean([image.flag for image in read[0].images])
    assert found.expected.rate == share > 0.1
    assert found.expected.compared(found.flagged) == "within"
    alone = find_drift(read[1], other)
    assert alone.expected.rate == 0.05
    assert alone.expected.compared(alone.flagged) == "above"


@pytest.mark.parametrize("by", ["model", "stream"])
def test_without_covariates_the_score_is_watched_and_that_is_said(make_model, by):
    known = read_known(make_model(acquisition=by != "model"))
    values = np.random.default_rng(7).normal(size=(30, 4))
    stream = stream_of(values)
    if by == "stream":
        bare = tuple(dataclasses.replace(i, covariates=None) for i in stream.images)
        stream = Stream(stream.tables, bare, 0)
    found = find_drift(stream, known)
    assert tuple(found.log_wealths) == ("score",)
    (note,) = found.notes
    assert "only the score is watched" in note
    assert ("train again" in note) == (by == "model")


def test_images_of_no_known_study_are_told(known):
    images = stream_of(np.zeros((5, 4))).images
    bare = tuple(dataclasses.replace(i, study="") for i in images[:3])
    (note,) = find_drift(Stream((Path("scores.csv"),), (*bare, *images[3:]), 0), known).notes
    assert "3 images are of no known study" in note


def test_a_model_that_can_flag_nothing_says_so(make_model):
    known = read_known(make_model(groups=10))
    found = find_drift(stream_of(np.zeros((3, 4))), known)
    assert any("can flag nothing" in note for note in found.notes)


def test_everything_is_json(known):
    values = np.random.default_rng(8).normal(size=(250, 4)) + 1000
    found = find_drift(stream_of(values), known).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["wealth"]["together"]["log10_highest"] > 10
    assert [alarm["wealth"] for alarm in found["alarms"]] == [20, 100]
    assert [w["images"] for w in found["windows"]] == [100, 100, 50]
