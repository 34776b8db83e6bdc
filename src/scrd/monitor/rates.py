"""How many images are flagged, and how many should be: exact limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scrd.scoring.calibration import Calibration
from scrd.scoring.promise import looks

WINDOW = 100
"""Images in a window."""
_TAIL = 0.025

Limits = tuple[float, float]


@dataclass(frozen=True)
class Rate:
    """A share of flagged images.

    Attributes:
        start: place of the first of them in the stream, from 0.
        images: how many.
        flagged: how many of them are flagged.
        limits: of the rate behind it, 95 %, see :func:`clopper_pearson`.
    """

    start: int
    images: int
    flagged: int
    limits: Limits

    @property
    def rate(self) -> float:
        """The share, in [0, 1]."""
        return self.flagged / self.images


@dataclass(frozen=True)
class Expected:
    """The rate of flags that is to be expected.

    Attributes:
        rate: in [0, 1].
        limits: what it may really be, 95 %.
    """

    rate: float
    limits: Limits

    def compared(self, found: Rate) -> str:
        """``above`` or ``below`` where the limits of both share no number, else ``within``."""
        if found.limits[0] > self.limits[1]:
            return "above"
        return "below" if found.limits[1] < self.limits[0] else "within"


def clopper_pearson(flagged: int, images: int) -> Limits:
    """Limits of a binomial probability that hold it in 95 % of all samples, or more.

    Quantiles of beta distributions (Clopper and Pearson 1934).

    Args:
        flagged: k, 0 to n.
        images: n, at least 1.
    """
    from scipy.special import betaincinv

    low = betaincinv(flagged, images - flagged + 1, _TAIL) if flagged else 0.0
    high = betaincinv(flagged + 1, images - flagged, 1 - _TAIL) if flagged < images else 1.0
    return float(low), float(high)


def calibrated(calibration: Calibration) -> Expected:
    """The rate that a model was calibrated for, and what it may really be.

    Over all calibration sets that could have been drawn, the rate of flags on normal images is
    distributed as beta with parameters l and G + 1 - l, l = ⌊f (G + 1)⌋, where f is the rate and G
    the number of calibration groups, one image each (Vovk 2012).
    """
    from scipy.special import betaincinv

    rate = calibration.false_alarm_rate
    count = len(set(looks(calibration.groups, calibration.promise)))
    flagged = math.floor(rate * (count + 1) + 1e-9)
    if not calibration.can_flag or not flagged:
        return Expected(0.0, (0.0, 0.0))
    low, high = betaincinv(flagged, count + 1 - flagged, [_TAIL, 1 - _TAIL])
    return Expected(rate, (float(low), float(high)))


def flag_rate(flags: ArrayLike, start: int = 0) -> Rate:
    """The share of flagged images among (N,) bool or 0 and 1, N at least 1."""
    found = np.asarray(flags)
    flagged, images = int(found.sum()), len(found)
    return Rate(start, images, flagged, clopper_pearson(flagged, images))


def windows(flags: Sequence[bool]) -> tuple[Rate, ...]:
    """The shares in one window after another; the last one may hold fewer images."""
    starts = range(0, len(flags), WINDOW)
    return tuple(flag_rate(flags[start : start + WINDOW], start) for start in starts)
