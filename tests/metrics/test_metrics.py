import time

import numpy as np
import pytest
from sklearn import metrics as oracle

from scrd.metrics import ranks as metrics


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
    assert metrics.auroc(scores, labels) == pytest.approx(
        oracle.roc_auc_score(labels, scores), abs=1e-12
    )
    assert metrics.average_precision(scores, labels) == pytest.approx(
        oracle.average_precision_score(labels, scores), abs=1e-12
    )


@pytest.mark.parametrize(("seed", "levels", "scale"), CASES)
def test_roc_curve_agrees_with_sklearn(seed, levels, scale):
    scores, labels = draw(seed, levels=levels, scale=scale)
    false_alarms, sensitivity = metrics.roc_curve(scores, labels)
    expected = oracle.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_alarms, expected[0])
    np.testing.assert_allclose(sensitivity, expected[1])


@pytest.mark.parametrize(("seed", "levels", "scale"), CASES)
def test_best_f1_is_the_best_of_all_thresholds(seed, levels, scale):
    scores, labels = draw(seed, levels=levels, scale=scale)
    best = metrics.best_f1(scores, labels)
    assert best.f1 == pytest.approx(
        max(oracle.f1_score(labels, scores >= t) for t in np.unique(scores))
    )
    flags = scores >= best.threshold
    assert best.f1 == pytest.approx(oracle.f1_score(labels, flags))
    assert best.accuracy == pytest.approx(oracle.accuracy_score(labels, flags))


def test_scores_outside_the_unit_interval_keep_their_order():
    # torchmetrics puts these through a sigmoid and answers 0.5
    assert metrics.auroc([100, 101, 102, 103], [0, 0, 1, 1]) == 1.0
    assert metrics.auroc([-np.inf, 5, np.inf, 5], [0, 0, 1, 1]) == 0.875


def test_constant_scores_are_chance():
    assert metrics.auroc(np.zeros(10), [0, 1] * 5) == 0.5
    assert metrics.average_precision(np.zeros(10), [0, 1] * 5) == 0.5


@pytest.mark.parametrize("far", [0.0, 0.01, 0.05, 0.333, 1.0])
def test_sensitivity_at_far_by_naive_search(far):
    scores, labels = draw(5, levels=8)
    normal, abnormal = scores[labels == 0], scores[labels == 1]
    allowed = [t for t in [*scores, np.inf] if np.mean(normal >= t) <= far]
    expected = max(np.mean(abnormal >= t) for t in allowed)
    assert metrics.sensitivity_at_far(scores, labels, far) == pytest.approx(expected)


def test_false_alarm_rate_counts_scores_at_the_threshold_and_needs_no_abnormal_image():
    assert metrics.false_alarm_rate([1, 2, 3, 4], [0, 0, 0, 0], 3) == 0.5
    assert metrics.false_alarm_rate([1, 2, 3, 4], [0, 1, 0, 1], 3) == 0.5
    with pytest.raises(ValueError, match="no|none"):
        metrics.false_alarm_rate([1, 2], [1, 1], 1)


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
        metrics.auroc,
        metrics.average_precision,
        metrics.best_f1,
        metrics.roc_curve,
        lambda s, y: metrics.bootstrap_interval(metrics.auroc, s, y),
    ],
)
def test_bad_input_is_named(metric, scores, labels, cause):
    with pytest.raises(ValueError, match=cause):
        metric(scores, labels)


def plain(metric):
    """The same metric under another identity, so that the interval takes the one-by-one path."""
    return lambda scores, labels: metric(scores, labels)


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.average_precision])
@pytest.mark.parametrize("grouped", [False, True])
def test_all_at_once_equals_one_by_one(metric, grouped):
    scores, labels = draw(6, n=60, levels=3)
    groups = [f"p{i // 3}" if i % 7 else None for i in range(60)] if grouped else None
    fast = metrics.bootstrap_interval(metric, scores, labels, groups=groups, resamples=300)
    slow = metrics.bootstrap_interval(plain(metric), scores, labels, groups=groups, resamples=300)
    assert fast == pytest.approx(slow, abs=1e-12)
    assert fast[0] < metric(scores, labels) < fast[1]


def test_interval_equals_numpys_resampling_of_each_class():
    """The mean of the abnormal scores has a bootstrap distribution that is known: normal."""
    rng = np.random.default_rng(7)
    scores, labels = rng.normal(size=400), np.repeat([0, 1], 200)
    low, high = metrics.bootstrap_interval(lambda s, y: float(s[y].mean()), scores, labels)
    abnormal = scores[200:]
    half = 1.96 * abnormal.std() / np.sqrt(200)
    assert low == pytest.approx(abnormal.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(abnormal.mean() + half, abs=0.15 * half)


def test_whole_groups_are_drawn():
    """Ten copies of each image in one group carry no more information than one copy."""
    scores, labels = draw(8, n=60)
    copies = np.repeat(scores, 10), np.repeat(labels, 10)
    groups = [str(i // 10) for i in range(600)]
    single = metrics.bootstrap_interval(metrics.auroc, scores, labels)
    clustered = metrics.bootstrap_interval(metrics.auroc, *copies, groups=groups)
    naive = metrics.bootstrap_interval(metrics.auroc, *copies)
    assert clustered == pytest.approx(single, abs=0.01)
    assert naive[1] - naive[0] < 0.5 * (clustered[1] - clustered[0])


def test_every_resample_keeps_both_classes_and_whole_groups():
    scores = np.arange(8.0)
    labels = [0, 0, 0, 1, 1, 0, 1, 0]
    groups = ["a", "a", "b", "c", None, "d", "d", None]
    seen = []

    def record(values, positive):
        assert positive.any() and not positive.all()
        times = np.bincount(values.astype(int), minlength=8)
        assert times[0] == times[1] and times[5] == times[6]
        seen.append(times)
        return 0.0

    metrics.bootstrap_interval(record, scores, labels, groups=groups, resamples=200)
    times = np.array(seen)
    # strata: normal only {a, b, image 7}, abnormal only {c, image 4}, both {d}
    assert (times[:, [0, 2, 7]].sum(1) == 3).all()
    assert (times[:, [3, 4]].sum(1) == 2).all()
    assert (times[:, 5] == 1).all()
    assert times[:, 7].max() > 1


def test_interval_covers_the_truth():
    """Two unit normals one apart have AUROC 0.7602; a 90 % interval misses it about 1 in 10."""
    truth, hits = 0.7602, 0
    for seed in range(200):
        rng = np.random.default_rng(1000 + seed)
        labels = np.repeat([0, 1], 50)
        scores = rng.normal(size=100) + labels
        low, high = metrics.bootstrap_interval(
            metrics.auroc, scores, labels, resamples=400, level=0.9, seed=seed
        )
        hits += low <= truth <= high
    assert 0.82 <= hits / 200 <= 0.96


def test_interval_is_repeatable_and_quick():
    scores, labels = draw(9, n=800)
    start = time.process_time()
    first = metrics.bootstrap_interval(metrics.auroc, scores, labels)
    assert time.process_time() - start < 3
    assert first == metrics.bootstrap_interval(metrics.auroc, scores, labels)
    assert first != metrics.bootstrap_interval(metrics.auroc, scores, labels, seed=1)


def test_large_sets_are_resampled_in_chunks(monkeypatch):
    scores, labels = draw(10, n=50)
    monkeypatch.setattr(metrics, "_CHUNK", 50 * 7)
    low, high = metrics.bootstrap_interval(metrics.auroc, scores, labels, resamples=500)
    assert low < metrics.auroc(scores, labels) < high


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"groups": ["a"]}, "1 groups for 20 scores"),
        ({"level": 1.0}, "level"),
        ({"resamples": 0}, "resample"),
    ],
)
def test_bad_bootstrap_options_are_named(options, cause):
    with pytest.raises(ValueError, match=cause):
        metrics.bootstrap_interval(metrics.auroc, *draw(11, n=20), **options)


def test_far_and_threshold_are_checked():
    with pytest.raises(ValueError, match="far"):
        metrics.sensitivity_at_far([0, 1], [0, 1], 1.5)
    with pytest.raises(ValueError, match="NaN"):
        metrics.false_alarm_rate([0, 1], [0, 1], float("nan"))
