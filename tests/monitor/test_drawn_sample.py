"""One value a patient or study, drawn so that nothing later changes what was drawn."""

import dataclasses

import numpy as np
import pytest

from scrd.data.covariates import Covariates
from scrd.monitor.sample import QUANTITIES, of_calibration, of_stream, one_each
from scrd.monitor.stream import Image
from scrd.storage.known import read_known

COVARIATES = Covariates(10, 10, None, None, None, 0.1, 0.2, -3.0)


def image(i, study="", table=0, covariates=COVARIATES):
    return Image(f"{i}.png", float(i), False, study, table, covariates)


def test_one_of_each_group_in_the_order_in_which_they_appear():
    groups = list("aabbbacd")
    seen = set()
    for seed in range(200):
        found = one_each(groups, np.random.default_rng(seed))
        assert [groups[i] for i in found] == list("abcd")
        seen |= set(found)
    assert seen == set(range(8))


def test_every_member_is_drawn_equally_often():
    draws = [one_each("aaaa", np.random.default_rng(seed))[0] for seed in range(4000)]
    assert np.bincount(draws).min() > 900


def test_later_groups_change_nothing_of_earlier_ones():
    whole = one_each(list("aaabbbcccddd"), np.random.default_rng(0))
    part = one_each(list("aaabbb"), np.random.default_rng(0))
    assert whole[:2] == part


def test_images_of_no_study_are_each_one_by_themselves():
    images = [image(0), image(1), image(2, "s"), image(3, "s"), image(4)]
    found = of_stream(images, np.random.default_rng(0))
    assert len(found) == 4
    assert [i.path for i in found.images if not i.study] == ["0.png", "1.png", "4.png"]
    assert found.values["score"][2] in (2, 3)
    assert tuple(found.values) == QUANTITIES


def test_a_study_that_is_scored_anew_counts_at_its_first_time():
    images = [image(0, "s"), image(1, "t"), image(2, "s", table=1), image(3, "u", table=1)]
    found = of_stream(images, np.random.default_rng(0))
    assert [i.path for i in found.images] == ["0.png", "1.png", "3.png"]
    assert found.repeated == 1


def test_without_covariates_of_all_only_the_score_is_known():
    images = [image(0), dataclasses.replace(image(1), covariates=None)]
    assert tuple(of_stream(images, np.random.default_rng(0)).values) == ("score",)


@pytest.mark.parametrize("acquisition", [True, False])
def test_one_calibration_normal_a_group(make_model, acquisition):
    calibration = read_known(make_model(acquisition=acquisition)).calibration
    found = of_calibration(calibration, np.random.default_rng(0))
    assert len(found) == 40
    places = [calibration.scores.index(score) for score in found.values["score"].tolist()]
    assert [calibration.groups[i] for i in places] == list(range(40))
    if acquisition:
        sharpness = np.array(calibration.acquisition.sharpness)[places]
        np.testing.assert_array_equal(found.values["sharpness"], sharpness)
    else:
        assert tuple(found.values) == ("score",)
