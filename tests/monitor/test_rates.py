"""Limits of rates against scipy's, and what a calibration leaves open."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from scrd.monitor.rates import Expected, calibrated, clopper_pearson, flag_rate, windows
from scrd.scoring.calibration import Calibration, threshold_at


@pytest.mark.parametrize(("flagged", "images"), [(0, 1), (1, 1), (0, 20), (3, 50), (50, 50)])
def test_limits_are_scipys(flagged, images):
    expected = binomtest(flagged, images).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(clopper_pearson(flagged, images), expected, atol=1e-12)


def calibration(groups, rate=0.05, promise="group"):
    scores, ids = tuple(float(i) for i in range(len(groups))), tuple(groups)
    threshold = threshold_at(scores, ids, rate)
    return Calibration(scores, ids, rate, threshold, 1.0, (0.0, 1.0), "areas", promise=promise)


def test_what_a_calibration_leaves_open_is_that_of_the_documentation():
    found = calibrated(calibration(range(39)))
    assert found.rate == 0.05
    np.testing.assert_allclose(found.limits, beta.ppf([0.025, 0.975], 2, 38))
    assert [f"{100 * limit:.1f}" for limit in found.limits] == ["0.6", "13.5"]
    # images of one group are one look, unless the rate is promised by image
    groups = [i // 2 for i in range(78)]
    assert calibrated(calibration(groups)) == found
    assert calibrated(calibration(groups, promise="image")).limits != found.limits


def test_a_model_that_can_flag_nothing_is_expected_to_flag_nothing():
    assert calibrated(calibration(range(5))) == Expected(0.0, (0.0, 0.0))


def test_windows_follow_one_another_and_the_last_is_what_is_left():
    flags = [i % 10 == 0 for i in range(230)]
    found = windows(flags)
    assert [(w.start, w.images, w.flagged) for w in found] == [
        (0, 100, 10),
        (100, 100, 10),
        (200, 30, 3),
    ]
    assert found[0].rate == 0.1
    assert found[0].limits == clopper_pearson(10, 100)


def test_a_rate_is_off_where_the_limits_share_no_number():
    expected = Expected(0.05, (0.02, 0.09))
    assert expected.compared(flag_rate([True] * 20 + [False] * 80)) == "above"
    assert expected.compared(flag_rate([True] * 10 + [False] * 90)) == "within"
    assert expected.compared(flag_rate([False] * 1000)) == "below"
