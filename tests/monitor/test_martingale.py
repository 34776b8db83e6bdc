"""The wealth against a loop over accounts, its promise, and what it gains from a change."""

import math

import numpy as np
import pytest

from scrd.monitor.martingale import average, first_at, kept_back, log_wealth


def naive(p_values):
    """The Simple Jumper's accounts, to which money is added by the plan; plain numbers."""
    accounts = dict.fromkeys((-1, -0.5, 0, 0.5, 1), 0.0)
    cash, found = 1.0, []
    for t, p in enumerate(p_values, start=1):
        staked = cash - 1 / (2 + math.log(t))
        cash -= staked
        total = sum(accounts.values())
        for epsilon in accounts:
            accounts[epsilon] = 0.99 * accounts[epsilon] + 0.01 * total / 5 + staked / 5
            accounts[epsilon] *= 1 + epsilon * (p - 0.5)
        found.append(cash + sum(accounts.values()))
    return found


@pytest.mark.parametrize("shift", [0.2, 1, 3])
def test_the_wealth_is_that_of_a_loop(shift):
    p_values = np.random.default_rng(0).random(300) ** shift
    np.testing.assert_allclose(np.exp(log_wealth(p_values)), naive(p_values), rtol=1e-9)


def test_streams_side_by_side_are_each_as_alone():
    p_values = np.random.default_rng(1).random((2, 3, 50))
    found = log_wealth(p_values)
    for place in np.ndindex(2, 3):
        np.testing.assert_allclose(found[place], log_wealth(p_values[place]))


def test_the_expected_wealth_stays_1():
    # the mean over all p-values on a fine grid, whatever came before
    before = np.random.default_rng(2).random(20) ** 2
    grid = (np.arange(1000) + 0.5) / 1000
    after = np.exp(log_wealth(np.stack([np.append(before, p) for p in grid])))
    np.testing.assert_allclose(after[:, -1].mean(), after[0, -2], rtol=1e-9)


def test_kept_back_goes_to_nothing_slowly():
    assert kept_back(0) == 1 and kept_back(1) == 0.5
    assert 0.05 < kept_back(10**7) < kept_back(10**4) < 0.1


def test_a_long_quiet_time_costs_little_and_a_change_after_it_is_seen():
    rng = np.random.default_rng(3)
    quiet = rng.random(5000)
    found = log_wealth(np.append(quiet, rng.random(300) ** 4))
    assert found[4999] > -4
    assert 5000 < first_at(found, 20) < 5150


def test_a_long_drift_is_no_overflow():
    found = log_wealth(np.zeros(5000))
    assert np.isfinite(found).all() and found[-1] > 1500


def test_the_average_is_of_the_wealths_and_not_of_their_logarithms():
    logs = np.log([[1.0, 9.0, 4.0], [3.0, 1.0, 8.0]])
    np.testing.assert_allclose(np.exp(average(logs)), [2, 5, 6])


def test_the_first_place_at_a_level():
    logs = np.log([1.0, 20.5, 5.0, 100.0])
    assert (first_at(logs, 20), first_at(logs, 100), first_at(logs, 200)) == (1, 3, None)
