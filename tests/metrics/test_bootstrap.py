import time

import numpy as np
import pytest

from scrd.metrics import bootstrap
from scrd.metrics.bootstrap import bootstrap_interval
from scrd.metrics.ranks import auroc, average_precision


def draw(seed, n=200, levels=None, scale=1.0):
    """Scores of two overlapping classes; `levels` rounds them so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    labels[:2] = 0, 1
    scores = rng.normal(size=n) + labels
    if levels:
        scores = np.round(scores * levels) / levels
    return scores * scale, labels


def plain(metric):
    """The same metric under another identity, so that the interval takes the one-by-one path."""
    return lambda scores, labels: metric(scores, labels)


@pytest.mark.parametrize("metric", [auroc, average_precision])
@pytest.mark.parametrize("grouped", [False, True])
def test_all_at_once_equals_one_by_one(metric, grouped):
    scores, labels = draw(6, n=60, levels=3)
    groups = [f"p{i // 3}" if i % 7 else None for i in range(60)] if grouped else None
    fast = bootstrap_interval(metric, scores, labels, groups=groups, resamples=300)
    slow = bootstrap_interval(plain(metric), scores, labels, groups=groups, resamples=300)
    assert fast == pytest.approx(slow, abs=1e-12)
    assert fast[0] < metric(scores, labels) < fast[1]


def test_interval_equals_numpys_resampling_of_each_class():
    """The mean of the abnormal scores has a bootstrap distribution that is known: normal."""
    rng = np.random.default_rng(7)
    scores, labels = rng.normal(size=400), np.repeat([0, 1], 200)
    low, high = bootstrap_interval(lambda s, y: float(s[y].mean()), scores, labels)
    abnormal = scores[200:]
    half = 1.96 * abnormal.std() / np.sqrt(200)
    assert low == pytest.approx(abnormal.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(abnormal.mean() + half, abs=0.15 * half)


def test_whole_groups_are_drawn():
    """Ten copies of each image in one group carry no more information than one copy."""
    scores, labels = draw(8, n=60)
    copies = np.repeat(scores, 10), np.repeat(labels, 10)
    groups = [str(i // 10) for i in range(600)]
    single = bootstrap_interval(auroc, scores, labels)
    clustered = bootstrap_interval(auroc, *copies, groups=groups)
    naive = bootstrap_interval(auroc, *copies)
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

    bootstrap_interval(record, scores, labels, groups=groups, resamples=200)
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
        low, high = bootstrap_interval(auroc, scores, labels, resamples=400, level=0.9, seed=seed)
        hits += low <= truth <= high
    assert 0.82 <= hits / 200 <= 0.96


def test_interval_is_repeatable_and_quick():
    scores, labels = draw(9, n=800)
    start = time.process_time()
    first = bootstrap_interval(auroc, scores, labels)
    assert time.process_time() - start < 3
    assert first == bootstrap_interval(auroc, scores, labels)
    assert first != bootstrap_interval(auroc, scores, labels, seed=1)


def test_large_sets_are_resampled_in_chunks(monkeypatch):
    scores, labels = draw(10, n=50)
    monkeypatch.setattr(bootstrap, "_CHUNK", 50 * 7)
    low, high = bootstrap_interval(auroc, scores, labels, resamples=500)
    assert low < auroc(scores, labels) < high


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
        bootstrap_interval(auroc, *draw(11, n=20), **options)


@pytest.mark.parametrize(
    ("scores", "labels", "cause"),
    [([0.1, np.nan, 0.3], [0, 1, 1], "1 of 3 scores are NaN"), ([], [], "0 normal and 0 abnormal")],
)
def test_bad_scores_are_named(scores, labels, cause):
    with pytest.raises(ValueError, match=cause):
        bootstrap_interval(auroc, scores, labels)
