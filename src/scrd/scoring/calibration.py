"""What held-out normals say about scores: p-values and thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scrd.errors import ConfigError
from scrd.scoring.promise import UNCALIBRATED, Promise, looks, too_few

Floats = NDArray[np.float64]


POOLED_SHARE = 0.1
"""Share of the images of a series or study, the highest scores, whose mean is its score; of new
models, see :class:`Calibration`."""
MANY = 20
"""Images from which on their number no longer moves the pooled score; of new models."""


def pool(scores: ArrayLike, share: float) -> float:
    """The score of a series or study: the mean of its highest images, at least one.

    Unlike a maximum it does not grow with the number of slices once there are many.

    Args:
        scores: (N,), float, of its images; N ≥ 1.
        share: which part of them, in (0, 1], see :class:`Calibration`.
    """
    ranked = np.sort(np.asarray(scores, dtype=np.float64))
    return float(ranked[-max(1, int(share * len(ranked))) :].mean())


@dataclass(frozen=True)
class Level:
    """Normal series or studies, each pooled to one score.

    Attributes:
        scores: of the normal series or studies, see :func:`pool`.
        groups: the group of each, as running numbers.
        images: the largest number of images in one of them.
        fewest: the smallest number of images in one of them; 0 where that was not kept.
    """

    scores: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()
    images: int = 0
    fewest: int = 0

    def speaks_for(self, images: int, many: int) -> bool:
        """Whether these normals can be compared with a pool of so many images.

        A pool of few images grows with their number, so that it must not hold more than theirs.

        Args:
            images: in the pool.
            many: from which on their number does not matter, see :class:`Calibration`.
        """
        return bool(self.scores) and (images <= self.images or self.images >= many)


@dataclass(frozen=True)
class Acquisition:
    """How the calibration normals were acquired, as far as their prepared pixels tell.

    Attributes:
        brightness: (M,), mean, see :func:`scrd.data.covariates.acquisition`; empty in models that
            were saved without it, as the next two.
        contrast: (M,), standard deviation.
        sharpness: (M,), natural logarithm of the mean square of the Laplacian.
    """

    brightness: tuple[float, ...] = ()
    contrast: tuple[float, ...] = ()
    sharpness: tuple[float, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """What held-out normals say about a score.

    Attributes:
        scores: scores of the calibration normals, any order; empty where no normals were held out,
            which leaves no p-values and infinite thresholds.
        groups: the group (patient, lesion, near-copy cluster) of each, as running numbers.
        false_alarm_rate: the rate that ``threshold`` is chosen for, in (0, 1).
        threshold: flag a score that is at least this; infinite when there are too few normals
            for the rate.
        map_threshold: mark pixels of an anomaly map above this; the calibration normals'
            maxima exceed it in ``false_alarm_rate`` of the images.
        map_scale: (low, high) of the common colour scale of heat maps.
        pooling: the pooling in use.
        series: the calibration normals, pooled by series.
        study: the same by study.
        pooled_share: part of the images of a series or study whose mean score is its score.
        many: images of a series or study from which on their number no longer moves its score.
        promise: what the rate holds for, see :data:`scrd.scoring.promise.Promise`; of a level,
            an image is a series or study.
        acquisition: of the calibration normals, in the order of ``scores``.

    The defaults of the last four are what models mean that were saved without them.
    """

    scores: tuple[float, ...]
    groups: tuple[int, ...]
    false_alarm_rate: float
    threshold: float
    map_threshold: float
    map_scale: tuple[float, float]
    pooling: str
    series: Level = field(default_factory=Level)
    study: Level = field(default_factory=Level)
    pooled_share: float = 0.1
    many: int = 20
    promise: Promise = "group"
    acquisition: Acquisition = field(default_factory=Acquisition)

    @property
    def calibrated(self) -> bool:
        """Whether there are normals to compare a score with."""
        return bool(self.scores)

    def require(self, what: str) -> None:
        """Refuse what stands on p-values where there are none.

        Args:
            what: is refused, the beginning of the message.

        Raises:
            ConfigError: no normals were held out.
        """
        if not self.calibrated:
            raise ConfigError(f"{what}: {UNCALIBRATED}")

    @property
    def can_flag(self) -> bool:
        """Whether any score could be flagged."""
        return math.isfinite(self.threshold)

    @property
    def silence(self) -> str | None:
        """Why nothing can ever be flagged, a sentence; None where something can."""
        if self.can_flag:
            return None
        count = len(set(looks(self.groups, self.promise)))
        return too_few(count, self.false_alarm_rate, self.promise) or (
            "the threshold is infinite: nothing is ever flagged"
        )

    def p_values(self, scores: ArrayLike, level: Level | None = None) -> Floats:
        """Conformal p-values, see :func:`p_values`.

        Args:
            scores: (N,), float, of images, or of series or studies.
            level: the normals of the latter.
        """
        normals = self if level is None else level
        return p_values(scores, normals.scores, looks(normals.groups, self.promise))


def p_values(scores: ArrayLike, normals: ArrayLike, groups: Sequence[int]) -> Floats:
    """Conformal p-values of scores, from normals that come in groups.

    p(s) = (1 + (G / M) · #{i : s_i ≥ s}) / (G + 1), M normals in G groups.

    With one image a group this is the split-conformal p-value (Vovk et al. 2005), and for a new
    normal image that is exchangeable with the calibration normals P(p ≤ t) ≤ t for every t.
    Images of one group are alike, so M images are no more than G independent looks at normality:
    the group of the new image is the (G + 1)th, and counts with the mean group size M / G. The
    promise holds for groups of one size. Where sizes differ it holds per *image*, as false alarms
    are counted in practice, up to an error that vanishes with more groups, see
    :func:`scrd.scoring.promise.worst_rate`.

    Args:
        scores: (N,), float, any range.
        normals: (M,), float, scores of the calibration normals.
        groups: (M,), group of each; every image its own where the rate is promised by image, see
            :func:`scrd.scoring.promise.looks`.

    Returns:
        (N,), float64, in [1 / (G + 1), 1].

    Raises:
        ValueError: no normals, NaN, or lengths that differ.
    """
    s = np.atleast_1d(np.asarray(scores, dtype=np.float64))
    values, steps = _steps(normals, groups)
    if np.isnan(s).any():
        raise ValueError("a score is NaN")
    return steps[np.searchsorted(values, s, side="left")]


def _steps(normals: ArrayLike, groups: Sequence[int]) -> tuple[Floats, Floats]:
    """Sorted scores (M,), and (M + 1,) the p-value of a score with i of them below it."""
    values = np.asarray(normals, dtype=np.float64)
    ids = np.asarray(groups)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError("calibration needs at least one normal score")
    if len(ids) != len(values):
        raise ValueError(f"{len(values)} scores, but {len(ids)} groups")
    if np.isnan(values).any():
        raise ValueError("a calibration score is NaN")
    count = len(np.unique(ids))
    above = np.arange(len(values), -1, -1)
    # (1 + G) / (G + 1) is 1, also in binary, if the whole numbers are multiplied first
    return np.sort(values), (1 + above * count / len(values)) / (count + 1)


def threshold_at(normals: ArrayLike, groups: Sequence[int], false_alarm_rate: float) -> float:
    """The smallest score whose p-value is at most ``false_alarm_rate``.

    Returns:
        t, such that ``score >= t`` exactly when ``p(score) <= false_alarm_rate``; infinity when
        there are fewer than ``1 / false_alarm_rate - 1`` groups.
    """
    values, steps = _steps(normals, groups)
    small = steps <= false_alarm_rate
    if not small[-1]:
        return float("inf")
    # steps[0] is 1, so at least one normal lies below the threshold
    return float(np.nextafter(values[int(np.argmax(small)) - 1], np.inf))


def pool_normals(scores: Floats, groups: Sequence[int], names: Sequence[str]) -> Level:
    """Pool the scores of normals that share a name, such as that of their series.

    Args:
        scores: (N,), float64, of images.
        groups: group of each; that of the first image is that of the pool.
        names: name of each.
    """
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        members.setdefault(name, []).append(i)
    return Level(
        scores=tuple(pool(scores[found], POOLED_SHARE) for found in members.values()),
        groups=tuple(groups[found[0]] for found in members.values()),
        images=max(len(found) for found in members.values()),
        fewest=min(len(found) for found in members.values()),
    )
