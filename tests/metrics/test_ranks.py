import numpy as np
import pytest
from sklearn import metrics as oracle

from scrd.metrics import ranks


def draw(seed, n=200, levels=None, scale=1.0):
    """Scores of two overlapping classes; `levels` rounds them so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    labels[:2] = 0, 1
    scores = rng.normal(size=n) + labels
    if levels:
        scores = np.round(scores * levels) / levels
    return scores * scale, labels


CASES = [(0, None, 1.0), (1, 4, 1.0), (2, 1, 1e6), (3, None, 1e-9), (4, 2, 1.0)]


@pytest.mark.parametrize(("seed", "levels", "scale"), CASES)
def test_areas_agree_with_sklearn(seed, levels, scale):
    scores, labels = draw(seed, levels=levels, scale=scale)
    assert ranks.auroc(scores, labels) == pytest.approx(
        oracle.roc_auc_score(labels, scores), abs=1e-12
    )
    assert ranks.average_precision(scores, labels) == pytest.approx(
        oracle.average_precision_score(labels, scores), abs=1e-12
    )


@pytest.mark.parametrize(("seed", "levels", "scale"), CASES)
def test_roc_curve_agrees_with_sklearn(seed, levels, scale):
    scores, labels = draw(seed, levels=levels, scale=scale)
    false_alarms, sensitivity = ranks.roc_curve(scores, labels)
    expected = oracle.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_alarms, expected[0])
    np.testing.assert_allclose(sensitivity, expected[1])


@pytest.mark.parametrize(("seed", "levels", "scale"), CASES)
def test_best_f1_is_the_best_of_all_thresholds(seed, levels, scale):
    scores, labels = draw(seed, levels=levels, scale=scale)
    best = ranks.best_f1(scores, labels)
    assert best.f1 == pytest.approx(
        max(oracle.f1_score(labels, scores >= t) for t in np.unique(scores))
    )
    flags = scores >= best.threshold
    assert best.f1 == pytest.approx(oracle.f1_score(labels, flags))
    assert best.accuracy == pytest.approx(oracle.accuracy_score(labels, flags))


def test_scores_outside_the_unit_interval_keep_their_order():
    # torchmetrics puts these through a sigmoid and answers 0.5
    assert ranks.auroc([100, 101, 102, 103], [0, 0, 1, 1]) == 1.0
    assert ranks.auroc([-np.inf, 5, np.inf, 5], [0, 0, 1, 1]) == 0.875


def test_constant_scores_are_chance():
    assert ranks.auroc(np.zeros(10), [0, 1] * 5) == 0.5
    assert ranks.average_precision(np.zeros(10), [0, 1] * 5) == 0.5


@pytest.mark.parametrize("far", [0.0, 0.01, 0.05, 0.333, 1.0])
def test_sensitivity_at_far_by_naive_search(far):
    scores, labels = draw(5, levels=8)
    normal, abnormal = scores[labels == 0], scores[labels == 1]
    allowed = [t for t in [*scores, np.inf] if np.mean(normal >= t) <= far]
    expected = max(np.mean(abnormal >= t) for t in allowed)
    assert ranks.sensitivity_at_far(scores, labels, far) == pytest.approx(expected)


def test_false_alarm_rate_counts_scores_at_the_threshold_and_needs_no_abnormal_image():
    assert ranks.false_alarm_rate([1, 2, 3, 4], [0, 0, 0, 0], 3) == 0.5
    assert ranks.false_alarm_rate([1, 2, 3, 4], [0, 1, 0, 1], 3) == 0.5
    with pytest.raises(ValueError, match="no|none"):
        ranks.false_alarm_rate([1, 2], [1, 1], 1)


@pytest.mark.parametrize(
    ("scores", "labels", "cause"),
    [
        ([0.1, np.nan, 0.3], [0, 1, 1], "1 of 3 scores are NaN"),
        ([0.1, 0.2], [0, 0], "2 normal and 0 abnormal"),
        ([0.1, 0.2], [1, 1], "0 normal and 2 abnormal"),
        ([0.1, 0.2], [0, 1, 1], "one length"),
        ([[0.1], [0.2]], [[0], [1]], "one length"),
        ([0.1, 0.2], [0, 2], "0 .normal. or 1"),
        ([], [], "0 normal and 0 abnormal"),
    ],
)
@pytest.mark.parametrize(
    "metric",
    [
        ranks.auroc,
        ranks.average_precision,
        ranks.best_f1,
        ranks.roc_curve,
    ],
)
def test_bad_input_is_named(metric, scores, labels, cause):
    with pytest.raises(ValueError, match=cause):
        metric(scores, labels)


def test_far_and_threshold_are_checked():
    with pytest.raises(ValueError, match="far"):
        ranks.sensitivity_at_far([0, 1], [0, 1], 1.5)
    with pytest.raises(ValueError, match="NaN"):
        ranks.false_alarm_rate([0, 1], [0, 1], float("nan"))
