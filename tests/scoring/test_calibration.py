"""P-values against loops and the textbook, thresholds against p-values, what normals teach."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from scrd.config import Config
from scrd.model import build_model
from scrd.model.acquisition import acquisition
from scrd.model.scores import POOLINGS, infer, measured
from scrd.objectives import OBJECTIVES
from scrd.scoring.calibration import (
    Calibration,
    Level,
    p_values,
    pool,
    threshold_at,
)
from scrd.scoring.promise import looks_needed, too_few
from scrd.storage.plain import from_plain
from scrd.training.calibrate import calibrate
from scrd.training.normals import learn_normals
from scrd.training.scale_weights import scale_weights


def naive_p(score, normals, groups):
    count = len(set(groups))
    above = sum(s >= score for s in normals)
    return (1 + above * count / len(normals)) / (count + 1)


def random_case(rng, rounded=True):
    count = int(rng.integers(1, 60))
    normals = rng.normal(size=count)
    groups = rng.integers(0, rng.integers(1, count + 1), size=count)
    return (normals.round(1) if rounded else normals), groups.tolist()


def test_p_values_against_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(200):
        normals, groups = random_case(rng)
        scores = np.concatenate([rng.normal(size=5), normals[:3], [-9.0, 9.0]])
        expected = [naive_p(s, normals, groups) for s in scores]
        np.testing.assert_allclose(p_values(scores, normals, groups), expected, rtol=1e-9)


def test_one_image_a_group_gives_the_classical_p_value():
    rng = np.random.default_rng(1)
    normals, scores = rng.normal(size=99).round(1), rng.normal(size=50).round(1)
    expected = (1 + (normals[None] >= scores[:, None]).sum(axis=1)) / 100
    np.testing.assert_allclose(p_values(scores, normals, range(99)), expected, rtol=1e-9)


def test_alike_images_are_no_more_evidence_than_their_groups():
    # 100 images of 4 patients cannot give the p-value of 100 patients
    normals, groups = np.arange(100.0), [i % 4 for i in range(100)]
    assert p_values(200.0, normals, groups)[0] == pytest.approx(1 / 5)
    assert p_values(200.0, normals, range(100))[0] == pytest.approx(1 / 101)
    # a quarter of the images above, of what is one group's worth of images
    assert p_values(75.0, normals, groups)[0] == pytest.approx((1 + 1) / 5)


def test_p_values_fall_with_the_score_between_their_bounds():
    rng = np.random.default_rng(2)
    normals, groups = random_case(rng, rounded=False)
    p = p_values(np.linspace(-5, 5, 300), normals, groups)
    assert (np.diff(p) <= 0).all()
    assert p[0] == pytest.approx(1)
    assert p[-1] == pytest.approx(1 / (len(set(groups)) + 1))
    order = rng.permutation(len(normals))
    shuffled = p_values([0.1], normals[order], np.array(groups)[order].tolist())
    np.testing.assert_allclose(shuffled, p_values([0.1], normals, groups))


def test_what_cannot_calibrate_is_refused():
    for call in (p_values, threshold_at):
        score = (0.5,) if call is p_values else ()
        rate = () if call is p_values else (0.05,)
        with pytest.raises(ValueError, match="at least one"):
            call(*score, [], [], *rate)
        with pytest.raises(ValueError, match="2 scores, but 1 groups"):
            call(*score, [1.0, 2.0], [0], *rate)
        with pytest.raises(ValueError, match="NaN"):
            call(*score, [1.0, math.nan], [0, 1], *rate)
    with pytest.raises(ValueError, match="NaN"):
        p_values(math.nan, [1.0], [0])


def test_a_score_reaches_the_threshold_exactly_when_its_p_value_is_small_enough():
    rng = np.random.default_rng(3)
    finite = disagreements = 0
    for _ in range(3000):
        normals, groups = random_case(rng)
        far = float(rng.choice([0.01, 0.05, 0.1, 0.2, 0.25, 0.5, 0.9, rng.uniform(0.01, 0.99)]))
        threshold = threshold_at(normals, groups, far)
        finite += math.isfinite(threshold)
        steps = [np.nextafter(normals, np.inf), np.nextafter(normals, -np.inf)]
        scores = np.concatenate([normals, *steps, rng.normal(size=5), [-9.0, 9.0]])
        flagged = scores >= threshold
        disagreements += int((flagged != (p_values(scores, normals, groups) <= far)).sum())
    assert finite > 1000
    assert disagreements == 0


@pytest.mark.parametrize("far", [0.05, 0.1, 0.2, 1 / 3])
def test_too_few_groups_never_flag(far):
    needed = math.ceil(1 / far - 1e-9) - 1
    assert threshold_at(np.arange(needed - 1.0), range(needed - 1), far) == math.inf
    assert threshold_at(np.arange(float(needed)), range(needed), far) == np.nextafter(
        needed - 1, np.inf
    )
    # many images of few patients are still few
    crowd = np.arange(50.0 * (needed - 1))
    assert threshold_at(crowd, [i % (needed - 1) for i in range(len(crowd))], far) == math.inf


def test_false_alarms_keep_to_the_rate_where_images_of_a_group_are_alike():
    rng = np.random.default_rng(4)
    far, simulations, patients, images = 0.2, 4000, 6, 20
    groups = np.repeat(np.arange(patients), images)
    grouped = ignored = 0
    for _ in range(simulations):
        levels = rng.normal(size=patients + 1)
        noise = 0.1 * rng.normal(size=len(groups) + 1)
        normals, score = levels[groups] + noise[:-1], levels[-1] + noise[-1]
        grouped += p_values(score, normals, groups.tolist())[0] <= far
        ignored += p_values(score, normals, range(len(groups)))[0] <= far
    tolerance = 3 * math.sqrt(far * (1 - far) / simulations)
    assert 0.1 < grouped / simulations <= far + tolerance
    assert ignored / simulations > far + tolerance


def test_false_alarms_are_counted_by_image_where_large_groups_differ_from_small_ones():
    # single images score high, as odd ones do; every fifth patient has ten alike images
    rng = np.random.default_rng(5)

    def draw(patients):
        sizes = np.where(rng.random(patients) < 0.2, 10, 1)
        groups = np.repeat(np.arange(patients), sizes)
        level = rng.normal(size=patients) + np.where(sizes == 1, 1.5, 0.0)
        return level[groups] + 0.1 * rng.normal(size=len(groups)), groups.tolist()

    alarms = images = 0
    for _ in range(300):
        normals, groups = draw(200)
        fresh, _ = draw(200)
        alarms += (p_values(fresh, normals, groups) <= 0.05).sum()
        images += len(fresh)
    assert 0.04 < alarms / images < 0.055


SIZE = 64
CONFIG = Config(image_size=SIZE, false_alarm_rate=0.2, seed=5, objective="srd", pooling="excess")


def normals(count, seed):
    coarse = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    content = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    content[:, :8] = False
    return images, content


@pytest.fixture(scope="module")
def untaught():
    """A network that has learnt nothing, with uneven scale weights."""
    with torch.random.fork_rng(), pytest.warns(UserWarning, match="RANDOM"):
        torch.manual_seed(0)
        built = build_model("efficientnet_lite0", "random", image_size=SIZE, objective="srd").eval()
        torch.nn.init.normal_(built.scale_head.linear.weight, std=0.003)
    return built


@pytest.fixture(scope="module")
def model(untaught):
    taught = copy.deepcopy(untaught)
    learn_normals(taught, *normals(20, 1), CONFIG)
    return taught


def test_what_is_learnt_of_normals(untaught, model):
    images, content = normals(20, 1)
    maps = measured(untaught, images).maps
    for k, d in enumerate(maps):
        torch.testing.assert_close(model.normals.get_buffer(f"mean{k}"), d.mean(dim=0))
    found = infer(model, images, content)
    # on the normals that taught it, the excess is standardised, on every scale
    torch.testing.assert_close(found.excess.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        found.excess.std(dim=0, correction=0), torch.ones(3), atol=1e-3, rtol=0
    )

    def excess(x, inside):
        return infer(model, x, inside).excess

    expected = scale_weights(excess, images, content, found.excess, CONFIG.seed)
    torch.testing.assert_close(found.scale_weights, expected.expand(20, 3), atol=1e-4, rtol=0)
    assert (expected - 1 / 3).abs().max() > 0.05


def test_scale_weights_of_other_objectives_are_those_of_training(untaught):
    taught = copy.deepcopy(untaught)
    taught.objective = OBJECTIVES["paper"]
    learn_normals(taught, *normals(20, 1), CONFIG)
    images, content = normals(6, 3)
    found, before = (infer(m, images, content).scale_weights for m in (taught, untaught))
    assert torch.equal(found, before)
    assert found.std(dim=0).max() > 1e-3
    assert not torch.equal(taught.normals.mean0, untaught.normals.mean0)


def test_a_batch_more_or_less_does_not_change_what_is_learnt(untaught, model):
    again = copy.deepcopy(untaught)
    learn_normals(again, *normals(20, 1), CONFIG)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    other = copy.deepcopy(untaught)
    learn_normals(other, *normals(20, 2), CONFIG)
    changed = {n.split(".")[0] for n, t in other.state_dict().items() if not same(t, model, n)}
    assert changed == {"normals", "expected", "scale_head", "areas"}


def same(tensor, model, name):
    return torch.equal(tensor, model.state_dict()[name])


def calibrated_with(model, images, content, groups, config=CONFIG):
    """Two images a series, four a study."""
    series = [f"series {i // 2}" for i in range(len(groups))]
    studies = [f"study {i // 4}" for i in range(len(groups))]
    return calibrate(
        model, images, content, groups=groups, series=series, studies=studies, config=config
    )


@pytest.fixture(scope="module")
def calibrated(model):
    groups = [f"patient {i // 2}" for i in range(24)]
    return calibrated_with(model, *normals(24, 2), groups)


def test_the_calibration_keeps_how_its_normals_were_acquired(calibrated):
    expected = acquisition(*normals(24, 2)).T
    kept = calibrated.acquisition
    found = [kept.brightness, kept.contrast, kept.sharpness]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_calibration_end_to_end(model, calibrated):
    images, content = normals(24, 2)
    assert calibrated.groups == tuple(i // 2 for i in range(24))
    assert calibrated.pooling == "excess"
    statistics = infer(model, images, content).statistics
    np.testing.assert_allclose(calibrated.scores, statistics["excess"], atol=1e-4)
    flagged = np.array(calibrated.scores) >= calibrated.threshold
    np.testing.assert_array_equal(flagged, calibrated.p_values(calibrated.scores) <= 0.2)
    assert 0 < flagged.mean() < 0.2

    peaks = statistics["max"].double().numpy()
    assert (peaks > calibrated.map_threshold).mean() <= 0.2
    low, high = calibrated.map_scale
    assert low < calibrated.map_threshold < high


def test_series_and_studies_are_pooled_and_keep_their_groups(calibrated):
    scores = np.array(calibrated.scores)
    assert (calibrated.series.images, calibrated.study.images) == (2, 4)
    np.testing.assert_array_equal(calibrated.series.scores, scores.reshape(-1, 2).max(axis=1))
    assert calibrated.series.groups == tuple(range(12))
    np.testing.assert_array_equal(calibrated.study.scores, scores.reshape(-1, 4).max(axis=1))
    assert calibrated.study.groups == tuple(range(0, 12, 2))


def test_the_pooled_score_is_the_mean_of_the_highest_tenth():
    scores = np.random.default_rng(0).permutation(np.arange(45.0))
    assert pool(scores, 0.1) == np.mean([44, 43, 42, 41])
    assert pool([3.0, 5.0, 4.0], 0.1) == 5.0
    assert pool([-1.0], 0.1) == -1.0


def test_a_level_speaks_for_pools_up_to_its_own_size_unless_that_is_large():
    assert not Level().speaks_for(1, 20)
    few = Level((1.0,), (0,), images=3)
    assert [few.speaks_for(n, 20) for n in (1, 3, 4)] == [True, True, False]
    assert Level((1.0,), (0,), images=20).speaks_for(300, 20)


def test_calibrating_repeats_exactly_and_leaves_the_network_alone(model, calibrated):
    before = copy.deepcopy(model.state_dict())
    groups = [f"patient {i // 2}" for i in range(24)]
    assert calibrated_with(model, *normals(24, 2), groups) == calibrated
    other = calibrated_with(model, *normals(5, 9), list("abcde"))
    assert other.scores != calibrated.scores[:5]
    assert all(same(tensor, model, name) for name, tensor in before.items())


def test_by_image_the_thresholds_count_images_and_the_groups_are_kept(model, calibrated):
    groups = [f"patient {i // 2}" for i in range(24)]
    config = dataclasses.replace(CONFIG, promise="image")
    found = calibrated_with(model, *normals(24, 2), groups, config)
    assert (found.promise, calibrated.promise) == ("image", "group")
    assert found.groups == calibrated.groups
    assert found.threshold == threshold_at(found.scores, range(24), 0.2)
    assert found.threshold < calibrated.threshold
    assert found.map_threshold <= calibrated.map_threshold
    flagged = np.array(found.scores) >= found.threshold
    np.testing.assert_array_equal(flagged, found.p_values(found.scores) <= 0.2)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_pooling_that_is_asked_for_is_calibrated(model, pooling):
    config = dataclasses.replace(CONFIG, pooling=pooling)
    images, content = normals(6, 2)
    found = calibrated_with(model, images, content, list("abcdef"), config)
    assert found.pooling == pooling
    statistics = infer(model, images, content).statistics
    np.testing.assert_allclose(found.scores, statistics[pooling], atol=1e-4)
    others = [statistics[name] for name in POOLINGS if name != pooling]
    assert not any(np.allclose(found.scores, other, atol=1e-3) for other in others)


def test_calibration_survives_json(calibrated):
    text = json.dumps(dataclasses.asdict(calibrated), allow_nan=False)
    again = from_plain(Calibration, json.loads(text))
    assert again.scores == calibrated.scores
    assert again.map_scale == calibrated.map_scale
    probe = [calibrated.threshold, 0.0, 1.0]
    np.testing.assert_array_equal(again.p_values(probe), calibrated.p_values(probe))


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.1, 0.05, 0.07, 1 / 3, 0.01, 0.9])
def test_the_groups_that_are_needed_are_just_enough(rate):
    needed = looks_needed(rate)
    for groups, enough in ((needed, True), (needed - 1, False)):
        if groups:
            threshold = threshold_at(np.arange(groups), range(groups), rate)
            assert np.isfinite(threshold) is np.bool_(enough)
        assert (too_few(groups, rate) is None) is enough


def test_a_calibration_that_cannot_flag_says_so():
    few = Calibration((1.0, 2.0), (0, 1), 0.05, np.inf, 1.0, (0.0, 1.0), "mean")
    assert not few.can_flag
    assert few.silence == (
        "this model can flag nothing: 2 held-out groups of normals calibrate it, and a "
        "false-alarm rate of 0.05 needs at least 19"
    )
    assert dataclasses.replace(few, threshold=3.0).can_flag
    assert dataclasses.replace(few, threshold=3.0).silence is None
