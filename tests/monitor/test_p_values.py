"""Online p-values against a loop, and why those among a small fixed set will not do."""

import numpy as np
import pytest
from scipy.stats import kstest

from scrd.monitor.martingale import log_wealth
from scrd.monitor.p_values import online_p_values


def naive(reference, stream, generator):
    found, thetas = [], generator.random(len(stream))
    for k, value in enumerate(stream):
        before = [*reference, *stream[:k]]
        above = sum(s > value for s in before)
        equal = sum(s == value for s in before) + 1
        found.append((above + thetas[k] * equal) / (len(before) + 1))
    return found


def test_against_a_loop_with_ties_and_without_a_reference():
    rng = np.random.default_rng(0)
    for count in (0, 1, 7, 30):
        for digits in (0, 8):
            reference, stream = rng.normal(size=count).round(digits), rng.normal(size=40)
            found = online_p_values(reference, stream.round(digits), np.random.default_rng(1))
            expected = naive(reference, stream.round(digits), np.random.default_rng(1))
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_comes_later_changes_nothing_of_what_came_before():
    rng = np.random.default_rng(2)
    reference, stream = rng.normal(size=20), rng.normal(size=50)
    whole = online_p_values(reference, stream, np.random.default_rng(3))
    part = online_p_values(reference, stream[:30], np.random.default_rng(3))
    np.testing.assert_array_equal(whole[:30], part)


def test_the_order_of_the_reference_does_not_matter():
    rng = np.random.default_rng(4)
    reference, stream = rng.normal(size=20), rng.normal(size=50)
    one, other = (
        online_p_values(r, stream, np.random.default_rng(5)) for r in (reference, reference[::-1])
    )
    np.testing.assert_array_equal(one, other)


def test_uniform_and_independent_even_of_few_values_with_ties():
    rng = np.random.default_rng(6)
    found = np.array(
        [online_p_values(rng.integers(0, 4, 3), rng.integers(0, 4, 12), rng) for _ in range(2000)]
    )
    assert kstest(found.ravel(), "uniform").pvalue > 0.01
    together = np.corrcoef(found.T) - np.eye(12)
    assert np.abs(together).max() < 0.1


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        online_p_values([0.0], [np.nan], np.random.default_rng(0))
    with pytest.raises(ValueError, match="NaN"):
        online_p_values([np.nan], [0.0], np.random.default_rng(0))


# ----------------------------------------------------------- the promise, over 1,000 streams

STREAMS, LENGTH, REFERENCE = 1000, 400, 39  # as many groups as 5 % asks for


def alarms(p_values, level):
    return np.mean(log_wealth(p_values).max(axis=1) >= np.log(level))


@pytest.fixture(scope="module")
def exchangeable():
    rng = np.random.default_rng(7)
    return rng.normal(size=(STREAMS, REFERENCE)), rng.normal(size=(STREAMS, LENGTH)), rng


@pytest.mark.parametrize("level", [20, 100])
def test_exchangeable_streams_raise_no_more_alarms_than_promised(exchangeable, level):
    references, streams, rng = exchangeable
    found = alarms(
        np.array([online_p_values(r, s, rng) for r, s in zip(references, streams, strict=True)]),
        level,
    )
    # three standard deviations of a share over so many streams
    assert found <= 1 / level + 3 * np.sqrt(1 / level / STREAMS)
    assert found > 0  # the gambler does bet


def test_p_values_among_the_calibration_normals_alone_break_the_promise(exchangeable):
    references, streams, rng = exchangeable
    theta = rng.random(streams.shape)
    above = np.stack(
        [(r[None] > s[:, None]).sum(axis=1) for r, s in zip(references, streams, strict=True)]
    )
    found = alarms((above + theta) / (REFERENCE + 1), 20)
    assert found > 3 / 20
