"""`scrd status` with a model, and `scrd monitor` on what `scrd watch` left."""

import hashlib
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from scrd.archive.pulse import Pulse
from scrd.archive.state import Arrival, State
from scrd.cli import app
from scrd.data.covariates import Covariates
from scrd.monitor.drift import find_drift
from scrd.monitor.stream import MonitorError, read_stream
from scrd.outputs.history import Found, Seen
from scrd.storage.known import read_known

RNG = np.random.default_rng(0)
QUIET = RNG.normal(size=(150, 4))
DRIFTED = np.where(np.arange(150)[:, None] < 50, QUIET, QUIET + [0, 0, 0, -3])


def scrd(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def said(text):
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def make_state(tmp_path, model):
    """Writes a state file of a watch that scored these studies, ``slices`` images each."""

    def make(name, values, *, slices=1, running=True, of=None, prefix="s"):
        path = tmp_path / name
        known = read_known(of or model)
        with State(path, name="shelf", model=known.fingerprint) as state:
            for i, (score, *numbers) in enumerate(values.tolist()):
                told = Covariates(256, 240, None, None, "DICOM", *numbers)
                flag = score >= known.calibration.threshold
                seen = [Seen(f"{prefix}{i}", score, flag, told)] * slices
                state.record(queue=[Arrival(f"{prefix}{i}", f"{prefix}{i}", "f")])
                found = Found(slices + 1, 1, score, 0.5, seen)
                state.finish(f"{prefix}{i}", "done", flagged=flag, found=found, seconds=1.5)
            pulse = Pulse(path, model=known.fingerprint, model_folder=of or model)
            pulse.__enter__()
            pulse.answered()
            pulse.beat()
            if running:
                pulse._tell = lambda **_: None  # as after a kill, a moment ago
            pulse.__exit__(None, None, None)
        return path

    return make


def test_the_state_file_is_a_stream_like_tables(model, make_state, write_scores):
    known = read_known(model)
    folder = write_scores("weeks", model, DRIFTED)
    path = make_state("state", DRIFTED)
    by_table, by_state = (
        find_drift(read_stream([place], known.fingerprint), known) for place in (folder, path)
    )
    np.testing.assert_allclose(by_state.log_wealth, by_table.log_wealth)
    assert [a.at for a in by_state.alarms] == [a.at for a in by_table.alarms]
    assert by_state.alarms[0].path == f"study s{by_state.alarms[0].at}, image 1"
    assert (by_state.unscored, by_state.flagged) == (150, by_table.flagged)
    result = scrd("monitor", model, path)
    assert result.exit_code == 4
    assert "150 images with a score, 150 without" in said(result.stdout)


def test_a_study_that_was_done_again_counts_once(model, make_state):
    fingerprint = read_known(model).fingerprint
    path = make_state("state", QUIET[:3], slices=2)
    with State(path, name="shelf", model=fingerprint) as state:
        again = [Seen("s1", 9.0, True, None)]
        state.record(queue=[Arrival("s1", "s1", "other")])
        state.finish("s1", "done", found=Found(1, 0, 9.0, 0.1, again))
    stream = read_stream([path], fingerprint)
    assert [image.table for image in stream.images] == [0, 0, 1, 1, 2, 2, 3]
    known = read_known(model)
    assert len(find_drift(stream, known).counted) == 3


def test_scores_of_another_model_are_passed_over_or_refused(model, make_model, make_state):
    other = make_model("other", seed=3)
    path = make_state("state", QUIET[:5], of=other)
    with pytest.raises(MonitorError, match=r"state: no image was scored by the model .*, only by "):
        read_stream([path], read_known(model).fingerprint)
    make_state("state", QUIET[5:9], prefix="t")
    assert len(read_stream([path], read_known(model).fingerprint).images) == 4
    assert len(read_stream([path], read_known(other).fingerprint).images) == 5


def test_a_watch_that_is_well_ends_with_0(make_state, tmp_path):
    path = make_state("state", QUIET)
    before = hashlib.sha256(path.read_bytes()).digest()
    result = scrd("status", path)
    assert result.exit_code == 0, result.output
    words = said(result.stdout)
    assert "health WELL: it lives" in words
    assert "150 studies: 150 scored, " in words
    assert "waiting 0 studies" in words and "(median), 1.5 s (95 %)" in words
    assert "within the limits" in words and "drift no alarm: wealth" in words
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_drift_ends_with_4_and_death_with_5(make_state, tmp_path):
    drifted = make_state("drifted", DRIFTED)
    result = scrd("status", drifted)
    assert result.exit_code == 4, result.output
    assert "drift ALARM: sharpness is lower than in the reference" in said(result.stdout)
    stopped = make_state("stopped", QUIET, running=False)
    assert scrd("status", stopped).exit_code == 5
    result = scrd("status", stopped, drifted)
    assert result.exit_code == 5
    assert "DEAD: it was stopped" in said(result.stdout)
    with State(drifted, name="shelf", model="m") as state:
        state._db.execute("UPDATE watcher SET contacted = 0, started = 0")
    assert scrd("status", drifted).exit_code == 6


def test_for_machines(make_state, tmp_path):
    (tmp_path / "states").mkdir()
    make_state("states/a", DRIFTED)
    make_state("states/b", QUIET[:0])
    result = scrd("status", tmp_path / "states", "--json", "--days", "7")
    assert result.exit_code == 4
    one, other = json.loads(result.stdout)
    assert (one["done"], one["drift"]["counted"], one["health"]) == (150, 150, "well")
    assert one["drift"]["alarms"][0]["driver"] == "sharpness"
    assert one["flag_rate"]["compared"] == "within"
    assert (other["drift"], other["no_drift"]) == (None, "no study was scored yet")


def test_a_reference_takes_the_place_of_the_calibration_normals(make_state, write_scores, model):
    clinic = QUIET + [2, 0, 0, 0]
    path = make_state("state", clinic[75:])
    assert scrd("status", path).exit_code == 4
    weeks = write_scores("weeks", model, clinic[:75])
    assert scrd("status", path, "--reference", weeks).exit_code == 0


def test_a_copy_of_the_state_file_is_a_reference(make_state, tmp_path):
    clinic = QUIET + [2, 0, 0, 0]
    path = make_state("state", clinic[:75])
    copy = tmp_path / "first-weeks"
    copy.write_bytes(path.read_bytes())
    result = scrd("status", path, "--reference", copy)
    assert (result.exit_code, "every study is in the reference" in said(result.stderr)) == (2, True)
    make_state("state", clinic[75:], prefix="t")
    assert scrd("status", path).exit_code == 4
    result = scrd("status", path, "--reference", copy, "--json")
    assert result.exit_code == 0, result.output
    [told] = json.loads(result.stdout)
    assert (told["drift"]["images"], told["drift"]["counted"]) == (150, 75)
    assert "75 images are of studies that came before" in str(told["drift"]["notes"])


def test_a_model_that_is_gone_costs_only_the_drift(make_state, model, tmp_path):
    path = make_state("state", DRIFTED)
    model.rename(tmp_path / "moved")
    result = scrd("status", path)
    assert result.exit_code == 0
    assert "drift not known: " in said(result.stdout)
    assert scrd("status", path, "--model", tmp_path / "moved").exit_code == 4
    result = scrd("status", path, "--model", model)
    assert (result.exit_code, "no such model folder" in said(result.stderr)) == (2, True)


def test_what_is_no_state_file_ends_with_2(tmp_path):
    (tmp_path / "scores.csv").write_text("path,score")
    for place, told in (("scores.csv", "not a state file"), ("absent", "cannot be read: No such")):
        result = scrd("status", tmp_path / place)
        assert result.exit_code == 2
        assert f"{place}: {told}" in said(result.stderr)
