r"""A conformal test martingale: the wealth of a gambler who bets that a stream has changed.

If the stream is exchangeable, no gambler gains: the wealth is a martingale that starts at 1, and
the probability that it ever reaches c is at most 1 / c (Ville's inequality). So an alarm at
wealth 20 is false with a probability of at most 1/20, however long the stream is watched.

The bets are those of the Simple Jumper (Vovk et al. 2021, "Retrain or not retrain: conformal test
martingales for change-point detection"). The stake is divided among five accounts, ε in
{-1, -1/2, 0, 1/2, 1}. Before every image a share J of all that they hold is divided evenly again;
then an account's capital is multiplied by 1 + ε (p - 1/2).

Their stake is put down little by little, which is not in that paper. A gambler who stakes all at
once loses slowly as long as nothing happens: a factor of e³⁶ in 10,000 exchangeable images, which a
change must then win back. Here 1 / (2 + ln t) is still kept back after image t: half is staked at
the first one, and there is always something left to bet with. Any such plan that is made beforehand
leaves the wealth a martingale.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

EPSILONS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""ε of the accounts: negative ones gain from small p-values."""
JUMP = 0.01
"""J, the share of the capital that is divided anew before every image."""
LEVELS = (20, 100)
"""Wealth at which there is an alarm."""

Floats = NDArray[np.float64]


def kept_back(count: int) -> float:
    """The part of the initial wealth 1 that is not yet staked after so many images, in (0, 1]."""
    return 1.0 if count == 0 else 1 / (2 + math.log(count))


def log_wealth(p_values: ArrayLike) -> Floats:
    """The wealth after each image.

    Args:
        p_values: (..., N), in [0, 1], of one stream or of several.

    Returns:
        (..., N), float64: its natural logarithm; 0 is what the gambler began with.
    """
    p = np.asarray(p_values, dtype=np.float64)
    epsilons = np.array(EPSILONS)
    # capital is exp(scale) · shares: a long drift exceeds any floating-point number
    shares = np.full((*p.shape[:-1], len(EPSILONS)), 1 / len(EPSILONS))
    scale = np.full(p.shape[:-1], -np.inf)
    found = np.empty_like(p)
    for t in range(p.shape[-1]):
        cash = kept_back(t + 1)
        before, scale = scale, np.logaddexp(scale, math.log(kept_back(t) - cash))
        old = np.exp(before - scale)[..., None]
        shares = old * ((1 - JUMP) * shares + JUMP / len(EPSILONS)) + (1 - old) / len(EPSILONS)
        shares *= 1 + epsilons * (p[..., t, None] - 0.5)
        total = shares.sum(axis=-1)
        shares /= total[..., None]
        scale = scale + np.log(total)
        found[..., t] = np.logaddexp(scale, math.log(cash))
    return found


def average(logs: ArrayLike) -> Floats:
    """The average of several wealths over one stream, which is a martingale as they are.

    Args:
        logs: (K, N), natural logarithms, see :func:`log_wealth`.

    Returns:
        (N,), likewise.
    """
    values = np.asarray(logs, dtype=np.float64)
    found: Floats = np.logaddexp.reduce(values, axis=0) - math.log(len(values))
    return found


def first_at(log_wealths: ArrayLike, level: float) -> int | None:
    """The place of the first image at which the wealth is at least ``level``; None if it never is.

    Args:
        log_wealths: (N,), natural logarithms.
        level: of the wealth itself, above 0.
    """
    reached = np.flatnonzero(np.asarray(log_wealths) >= math.log(level))
    return int(reached[0]) if reached.size else None
