"""What a false-alarm rate promises, against simulated patients; and how many normals it takes."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from scrd.scoring.calibration import Calibration, Level, p_values, threshold_at
from scrd.scoring.promise import groups_to_hold_out, looks, too_few, worst_rate
from scrd.storage.plain import from_plain, to_plain

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def promises():
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("the benchmarks are not part of the source distribution")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import promises
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return promises


def test_looks_are_groups_or_images():
    assert looks(["b", "a", "b", "c"], "group") == [0, 1, 0, 2]
    assert looks(["b", "a", "b", "c"], "image") == [0, 1, 2, 3]


def test_by_image_the_p_value_is_the_classical_one():
    rng = np.random.default_rng(0)
    normals, scores = rng.normal(size=60).round(1), rng.normal(size=40).round(1)
    expected = (1 + (normals[None] >= scores[:, None]).sum(axis=1)) / 61
    found = p_values(scores, normals, looks([i // 10 for i in range(60)], "image"))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_by_image_the_rate_is_exact_for_other_images_of_the_same_patients(promises, correlation):
    rng, alarms, simulations = np.random.default_rng(1), 0, 3000
    for _ in range(simulations):
        scores, groups = promises.draw(10, correlation, rng)
        new = int(rng.integers(len(scores)))  # one of them, at random, is the new one
        rest = np.delete(scores, new)
        seen = looks(np.delete(groups, new).tolist(), "image")
        alarms += p_values(scores[new], rest, seen)[0] <= 0.05
    exact = np.floor(0.05 * 140) / 140
    assert alarms / simulations == pytest.approx(exact, abs=3 * np.sqrt(0.05 * 0.95 / simulations))


@pytest.mark.parametrize("patients", [19, 32])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_both_promises_hold_for_new_patients(promises, patients, correlation):
    equal = [i % patients for i in range(14 * patients)]
    for promise in ("group", "image"):
        alarms, _ = promises.rates(patients, correlation, promise, draws=400)
        error = 3 * alarms.std() / np.sqrt(len(alarms))
        assert alarms.mean() <= worst_rate(equal, 0.05, promise) + error
    # alike images of new patients are too many for the promise by image, not for that by group
    assert worst_rate(equal, 0.05, "group") == pytest.approx(0.05)
    if correlation == 0.9:
        assert alarms.mean() - error > 0.05


def test_where_images_of_a_patient_all_score_alike_the_worst_rate_is_reached():
    # patients of 10 images each, that score alike but for ties: rank k of 20 patients is uniform
    patients, size = 20, 10
    groups = np.repeat(np.arange(patients), size)
    for promise, reached in (("group", 1 / 21), ("image", 1 / 21 + 1 / 21)):
        flagged = 0
        for new in range(patients + 1):  # the place of the new patient among all
            levels = np.delete(np.arange(patients + 1.0), new)
            threshold = threshold_at(levels[groups], looks(groups.tolist(), promise), 0.06)
            flagged += new >= threshold
        rate = flagged / (patients + 1)
        assert rate == pytest.approx(reached)
        assert rate <= worst_rate(groups.tolist(), 0.06, promise)


@pytest.mark.parametrize("promise", ["group", "image"])
def test_uneven_patients_stay_below_the_worst_rate(promises, promise):
    sizes = [promises.draw(32, 0.9, np.random.default_rng(i), uneven=True)[1] for i in range(50)]
    bound = np.mean([worst_rate(groups.tolist(), 0.05, promise) for groups in sizes])
    alarms, _ = promises.rates(32, 0.9, promise, uneven=True, draws=400)
    assert alarms.mean() < bound
    assert bound > (0.05 if promise == "group" else 0.08)


def test_one_large_patient_can_break_the_rate_by_group_but_not_the_bound():
    # one of 20 patients has 200 images, all of the same high score; the others have one each
    rng, flagged, images = np.random.default_rng(2), 0, 0
    sizes = np.where(np.arange(21) == 0, 200, 1)
    groups = np.repeat(np.arange(21), sizes)
    for _ in range(100):
        levels = np.where(sizes > 1, 2.0, rng.normal(size=21))
        for new in range(21):
            rest = groups[groups != new]
            threshold = threshold_at(levels[rest], looks(rest.tolist(), "group"), 0.1)
            flagged += sizes[new] * (levels[new] >= threshold)
            images += sizes[new]
    assert 0.1 < flagged / images <= worst_rate(groups.tolist(), 0.1, "group")


def test_the_table_of_the_documentation_is_what_the_script_prints(promises):
    header, rule, *rows = promises.table([32]).splitlines()
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    assert f"{header}\n{rule}\n" in page
    assert "\n".join(rows) in page
    assert re.findall(r"^\| (\d+) \| 0 \|", page, re.M) == [str(n) for n in promises.PATIENTS]


def test_groups_are_held_out_for_the_rate_up_to_half():
    assert groups_to_hold_out(1000, 0.05) == [*range(39, 18, -1), 1]
    assert groups_to_hold_out(65, 0.05) == [*range(32, 18, -1), 1]
    assert groups_to_hold_out(38, 0.05) == [19, 1]
    assert groups_to_hold_out(37, 0.05) == [1]
    for rate in (0.5, 0.2, 0.1, 0.05, 0.01):
        best = groups_to_hold_out(10**6, rate)[0]
        assert best == round(2 / rate) - 1
        # one group's worth of calibration images may lie above the threshold, and not before
        for count, above in ((best, 10), (best - 1, 9)):
            scores = np.arange(10.0 * count)
            groups = [i % count for i in range(len(scores))]
            assert (scores >= threshold_at(scores, groups, rate)).sum() <= above


def test_too_few_says_what_there_are_too_few_of():
    assert too_few(19, 0.05, "image") is None
    assert too_few(18, 0.05, "image") == (
        "this model can flag nothing: 18 held-out normals calibrate it, and a false-alarm rate of "
        "0.05 needs at least 19"
    )


def calibration(promise):
    normals, groups = tuple(np.arange(40.0).tolist()), tuple(i // 4 for i in range(40))
    level = Level(normals[:20], groups[:20], images=3)
    seen = looks(groups, promise)
    return Calibration(
        normals, groups, 0.05, threshold_at(normals, seen, 0.05), 1.0, (0.0, 1.0), "mean",
        series=level, study=level, promise=promise,
    )  # fmt: skip


def test_everything_that_judges_follows_the_promise():
    by_group, by_image = calibration("group"), calibration("image")
    assert not by_group.can_flag
    assert "10 held-out groups of normals" in by_group.silence
    assert by_image.can_flag
    assert by_image.silence is None
    assert by_group.p_values(99.0)[0] == pytest.approx(1 / 11)
    assert by_image.p_values(99.0)[0] == pytest.approx(1 / 41)
    assert by_group.p_values(99.0, by_group.series)[0] == pytest.approx(1 / 6)
    assert by_image.p_values(99.0, by_image.series)[0] == pytest.approx(1 / 21)
    assert by_image.p_values(by_image.threshold)[0] <= 0.05
    assert from_plain(Calibration, to_plain(by_image)) == by_image


def test_a_calibration_saved_without_a_promise_means_by_group():
    saved = to_plain(calibration("group"))
    del saved["promise"]
    assert from_plain(Calibration, saved) == calibration("group")
