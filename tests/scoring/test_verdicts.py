import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scrd.data.source import Series, Source
from scrd.errors import ImageError
from scrd.scoring.calibration import Calibration, Level, p_values, pool
from scrd.scoring.scorer import Scored
from scrd.scoring.verdicts import collect, judge

NORMALS = tuple(np.linspace(0, 1, 40).tolist())
CALIBRATION = Calibration(
    scores=NORMALS,
    groups=tuple(range(40)),
    false_alarm_rate=0.05,
    threshold=0.99,
    map_threshold=1.0,
    map_scale=(0.0, 1.0),
    pooling="mean",
    series=Level(NORMALS, tuple(range(40)), images=10),
    study=Level(NORMALS, tuple(range(40)), images=30),
)


def scored(source, score):
    p = float(CALIBRATION.p_values(score)[0])
    empty = np.zeros((1, 1), np.float32)
    return Scored(source, score, p, p <= 0.05, {}, (1.0,), empty, (1, 1))


def series(uid, study, count):
    return Series(uid, study, None, tuple((Path(f"{uid}-{i}.dcm"), None) for i in range(count)))


def results(one, scores):
    return [(s, scored(s, score)) for s, score in zip(one.sources, scores, strict=True)]


def test_a_series_is_judged_among_normal_series():
    one = series("1", "9", 10)
    images = [r for _, r in results(one, np.linspace(0, 0.9, 10))]
    verdict = judge(images, CALIBRATION.series, CALIBRATION)
    assert verdict.score == pytest.approx(0.9)
    assert verdict.p_value == p_values(0.9, NORMALS, range(40))[0]
    assert (verdict.images, verdict.how, verdict.flag) == (10, "calibrated", False)
    high = [dataclasses.replace(i, score=i.score + 1) for i in images]
    assert judge(high, CALIBRATION.series, CALIBRATION).flag


def test_more_images_than_the_normal_series_had_fall_back_to_bonferroni():
    one = series("1", "9", 11)
    images = [r for _, r in results(one, [2.0] + [0.1] * 10)]
    verdict = judge(images, CALIBRATION.series, CALIBRATION)
    assert verdict.how == "bonferroni"
    assert verdict.p_value == pytest.approx(11 / 41)
    assert not verdict.flag
    many = [r for _, r in results(series("1", "9", 200), [0.1] * 200)]
    assert judge(many, CALIBRATION.series, CALIBRATION).p_value == 1.0


def test_a_study_of_many_normal_slices_is_not_flagged_by_numbers_alone():
    rng = np.random.default_rng(0)

    def pooled(images, studies):
        slices = rng.normal(rng.normal(size=(studies, 1)), 1, (studies, images))
        return [pool(scores, 0.1) for scores in slices]

    normal = pooled(100, 3000)
    for images in (30, 300):
        p = p_values(pooled(images, 3000), normal, range(3000))
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_results_are_put_together_by_series_and_study():
    a, b, c = series("1", "8", 2), series("2", "8", 3), series("3", "9", 1)
    picture = Source(Path("x.png"))
    stream = [
        *results(a, [0.1, 0.2]),
        *results(b, [0.3, 0.4, 0.5]),
        (picture, scored(picture, 3.0)),
        (c.sources[0], ImageError(c.sources[0].path, "truncated")),
    ]
    first, second = collect(iter(stream), CALIBRATION)
    assert (first.uid, [s.series for s in first.series]) == ("8", [a, b])
    assert [len(s.scored) for s in first.series] == [2, 3]
    assert [s.verdict.score for s in first.series] == [0.2, 0.5]
    assert (first.verdict.score, first.verdict.images) == (0.5, 5)
    assert second.verdict is None
    assert second.series[0].verdict is None
    assert second.series[0].scored == ()


def test_one_study_at_a_time_is_taken_from_the_stream():
    taken = []

    def stream():
        for uid in "1234":
            taken.append(uid)
            yield from results(series(uid, uid, 1), [0.1])

    studies = collect(stream(), CALIBRATION)
    next(studies)
    assert taken == ["1", "2"]
