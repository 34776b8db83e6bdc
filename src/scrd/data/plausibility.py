"""Whether an image holds something, and holds it in the grey values of the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrd.data.intensity import Intensity, apply_intensity
from scrd.data.sample import even_pixels

_PIXELS = 16_384  # of an image that are looked at
_ENDS = (1, 99)  # percentiles between which its grey values are said to lie
_COUNTED = 0.01  # share of the training images at either end that may be slips
_SLACK = 0.25  # of the usual width, for grey values beyond those of training
_SHIFT = 0.5  # of the usual width, by which an image is off as a whole
_NARROW = 0.5  # of the narrowest width of training
_COARSE = 1 / 8  # of the fewest grey values of training
_FEW = 4  # grey values are never enough, unless training had no more
_NEARLY_ALL = 0.995  # of the pixels at one value is nothing, unless training had that too


@dataclass(frozen=True)
class Facts:
    """Plain facts of one image.

    Attributes:
        low: 1st percentile of the grey values, as they are read; of colour, the mean of the three.
        high: 99th percentile.
        common: Share of the pixels that have the most common value, in (0, 1].
        levels: Number of distinct values.
        clipped: Share of the pixels that the intensity rule cuts off at either end, in [0, 1];
            0 for a rule that takes each image's own window.
        constant: All pixels are equal.
    """

    low: float
    high: float
    common: float
    levels: int
    clipped: float
    constant: bool


def measure(
    pixels: NDArray[np.generic],
    intensity: Intensity,
    series_window: tuple[float, float] | None = None,
) -> Facts:
    """The facts of an image; all but ``constant`` from at most 16,384 of its pixels.

    Args:
        pixels: (H, W) or (H, W, 3), uint8, uint16 or float32, as `read_image` returns them.
        intensity: The rule that makes them model input.
        series_window: See `apply_intensity`.
    """
    some = even_pixels(pixels, _PIXELS)
    values = some.astype(np.float64)
    grey = values if values.ndim == 2 else values.mean(axis=2)
    distinct, counts = np.unique(grey, return_counts=True)
    low, high = (float(value) for value in np.percentile(grey, _ENDS))
    clipped = 0.0
    if intensity.scope != "image":
        scaled = apply_intensity(some, intensity, series_window)
        reach = intensity.reach
        clipped = float(((scaled <= -reach) | (scaled >= 1 + reach)).mean())
    return Facts(
        low=low,
        high=high,
        common=float(counts.max() / counts.sum()),
        levels=len(distinct),
        clipped=clipped,
        constant=bool((pixels == pixels[:1, :1]).all()),
    )


@dataclass(frozen=True)
class Plausible:
    """What the training images' facts allow; the defaults allow all but what holds nothing.

    Attributes:
        low: Least and largest ``low`` of the training images; None where their grey values have
            no common unit.
        high: Likewise ``high``.
        width: Least and usual difference of ``high`` and ``low``.
        common: Largest share of one value.
        levels: Smallest number of distinct values.
        clipped: Largest share that was cut off.
        blank: Slices without content belong to the volumes of training.
    """

    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    width: tuple[float, float] | None = None
    common: float | None = None
    levels: int | None = None
    clipped: float | None = None
    blank: bool = False

    def doubts(self, facts: Facts) -> list[str]:
        """What speaks against an image, a sentence each."""
        if facts.constant:
            return [] if self.blank else [nothing(facts)]
        found = []
        if self._is_elsewhere(facts):
            assert self.low is not None and self.high is not None
            found.append(
                f"grey values run from {facts.low:.4g} to {facts.high:.4g}; in training from "
                f"{_span(self.low)} to {_span(self.high)}"
            )
        most = _NEARLY_ALL if self.common is None else _halfway(self.common)
        if facts.common > most and not self.blank:
            seen = "" if self.common is None else f"; in training at most {self.common:.0%}"
            found.append(f"{_percent(facts.common)} of the pixels have one grey value{seen}")
        fewest = _FEW + 1 if self.levels is None else self.levels
        if facts.levels < max(fewest * _COARSE, min(fewest, _FEW + 1)):
            seen = "" if self.levels is None else f"; the training images have at least {fewest}"
            found.append(f"only {facts.levels} different grey values{seen}")
        if self.clipped is not None and facts.clipped > _halfway(self.clipped):
            found.append(
                f"{_percent(facts.clipped)} of the pixels lie beyond the intensity window; in "
                f"training at most {self.clipped:.0%}"
            )
        return found

    def _is_elsewhere(self, facts: Facts) -> bool:
        if self.low is None or self.high is None or self.width is None:
            return False
        narrowest, usual = self.width
        slack = _SLACK * usual
        return not (
            self.low[0] - slack <= facts.low <= self.low[1] + slack
            and self.high[0] - slack <= facts.high <= self.high[1] + slack
            and facts.high - facts.low >= _NARROW * narrowest
        )


def nothing(facts: Facts) -> str:
    """Says that a constant image holds nothing."""
    return f"all pixels have one grey value ({facts.low:.4g}): there is nothing to see"


def learn_plausible(facts: Sequence[Facts], *, common_unit: bool) -> Plausible:
    """Take from training images what is plausible.

    One training image in a hundred may lie outside at either end: slips happen.

    Args:
        facts: Of the training images.
        common_unit: Whether equal grey values mean the same in all of them.
    """
    seen = [one for one in facts if not one.constant]
    if not seen:
        return Plausible()
    lows, highs = (np.array([getattr(one, name) for one in seen]) for name in ("low", "high"))
    widths = highs - lows
    return Plausible(
        low=_ends(lows) if common_unit else None,
        high=_ends(highs) if common_unit else None,
        width=(_ends(widths)[0], float(np.median(widths))) if common_unit else None,
        common=_ends(np.array([one.common for one in seen]))[1],
        levels=int(_ends(np.array([one.levels for one in seen]))[0]),
        clipped=_ends(np.array([one.clipped for one in seen]))[1],
        blank=len(facts) - len(seen) > _COUNTED * len(facts),
    )


def shifted(facts: Sequence[Facts]) -> list[int]:
    """Which training images are lifted or lowered as a whole against most others.

    Dark and bright end both lie off their medians by more than half of the usual width: a CT whose
    rescale intercept was lost is, a crop without air or an image with metal is not.

    Args:
        facts: Of images whose grey values have a common unit.

    Returns:
        Their numbers, rising.
    """
    if len(facts) < 3:
        return []
    ends = np.array([(one.low, one.high) for one in facts])
    usual = np.median(ends, axis=0)
    off = (ends - usual) / max(float(np.median(ends[:, 1] - ends[:, 0])), 1e-9)
    same_way = np.sign(off[:, 0]) == np.sign(off[:, 1])
    return [int(i) for i in np.flatnonzero((np.abs(off) > _SHIFT).all(axis=1) & same_way)]


def _ends(values: NDArray[np.generic]) -> tuple[float, float]:
    ranked = np.sort(values.astype(np.float64))
    out = int(_COUNTED * len(ranked))
    return float(ranked[out]), float(ranked[-1 - out])


def _halfway(share: float) -> float:
    """Half of what is left up to one."""
    return share + (1 - share) / 2


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _span(ends: tuple[float, float]) -> str:
    low, high = (f"{end:.4g}" for end in ends)
    return low if low == high else f"{low}..{high}"
