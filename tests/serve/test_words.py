"""What is said of a result, and what is counted."""

import numpy as np
import pytest

from scrd.scoring.calibration import Calibration
from scrd.serve.metrics import Metrics, reason_of
from scrd.serve.why import explain, unit_of

NORMALS = tuple(float(i) for i in range(100))


def calibration(threshold=95.5):
    return Calibration(
        scores=NORMALS,
        groups=tuple(range(100)),
        false_alarm_rate=0.05,
        threshold=threshold,
        map_threshold=2.0,
        map_scale=(0.0, 3.0),
        pooling="max",
    )


def image(score, flag, weights=(0.5, 0.5), **statistics):
    return {
        "score": score,
        "p_value": 0.04,
        "flag": flag,
        "statistics": {"max": score, **statistics},
        "scale_weights": list(weights),
    }


def spot(row, column):
    values = np.zeros((30, 60), np.float32)
    values[row : row + 3, column : column + 6] = 2.5
    return values


def test_a_flag_is_explained():
    said = " ".join(explain(image(97.0, True), spot(2, 50), calibration()))
    assert "Of 100 normal images that the model was calibrated on, 3 score as high" in said
    assert "at or above the threshold, 95.5, which 5 % of normals pass" in said
    assert "2.5 standard deviations of normals, in the upper right" in said
    assert "Inside the contour, 1 % of the picture, the map is above 2: 5 % of normal" in said
    assert "scales" not in said


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [
        (2, 2, "upper left"),
        (14, 27, "the middle of"),
        (27, 2, "lower left"),
        (14, 54, "middle right"),
    ],
)
def test_the_place_is_named(row, column, place):
    assert place in explain(image(1.0, False), spot(row, column), calibration())[3]


def test_what_is_quiet_is_explained():
    said = " ".join(explain(image(10.0, False), spot(0, 0) / 2, calibration()))
    assert "It is not flagged: the score is below" in said
    assert "below their middle" in said
    assert "Nowhere is the map above 2, which 5 % of normal images reach anywhere" in said


def test_what_can_flag_nothing_says_so():
    said = " ".join(explain(image(500.0, False), spot(0, 0), calibration(float("inf"))))
    assert "not flagged whatever it shows" in said and "none scores" in said


def test_the_scale_that_counts_most_is_named():
    said = explain(image(1.0, False, (0.1, 0.2, 0.7), excess=1.0), spot(0, 0), calibration())
    assert said[-1] == "The coarsest of 3 scales counts most, 70 %."
    assert unit_of({"excess": 1.0}) == "distance of teacher and student"


def test_what_is_counted():
    metrics = Metrics()
    images = [{"flag": True}, {"refusal": "broken: truncated"}]
    rows = [
        {"p_value": 0.01, "flag": True, "doubts": 2, "detail": {"images": images}},
        {"p_value": None, "flag": None, "doubts": 0, "refusal": "the file is empty"}
        | {"detail": {"images": [{"refusal": "the file is empty"}]}},
    ]
    metrics.finished(rows, "chest", queued=0.2, scoring=1.0, storing=0.01)
    metrics.failed("the worker died (signal 9); it was tried 3 times")
    metrics.watch("queue_jobs", "Jobs", lambda: 3)
    text = metrics.text().decode()
    for line in (
        'scrd_images_total{verdict="flagged"} 1.0',
        'scrd_images_total{verdict="refused"} 2.0',
        'scrd_results_total{model="chest",verdict="refused"} 1.0',
        'scrd_refusals_total{reason="broken"} 2.0',
        'scrd_jobs_failed_total{reason="worker died"} 1.0',
        'scrd_p_value_bucket{le="0.01",model="chest"} 1.0',
        'scrd_seconds_count{stage="queue"} 1.0',
        "scrd_queue_jobs 3.0",
        "scrd_doubted_total 1.0",
    ):
        assert line in text, line


def test_a_reason_is_one_of_few_words():
    told = "not what the model knows: body part Doe^Jane; trained on CHEST"
    assert reason_of(told) == "another kind"
    assert reason_of("no voxel is a finite number") == "other"
