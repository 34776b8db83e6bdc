"""What noise training adds; settings alone, without the means to make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from scrd.errors import ConfigError

NoiseKind = Literal["simplex", "gaussian"]
NoiseField = Literal["fresh", "fixed"]


@dataclass(frozen=True)
class NoiseSettings:
    """What kind of noise is added, how strong, and on how large a patch.

    Attributes:
        kind: "simplex", the method's noise; or "gaussian", white noise on the same patches with
            standard deviation `SIMPLEX_STD` of :mod:`scrd.synthesis.perturbation`, for ablations
            that ask what the structure of the noise is worth at equal energy. `octaves` and
            `persistence` do not act on it.
        strength: The factor lambda of the noise, in units of the image's [0, 1] range, positive.
        octaves: Number of octaves of simplex noise; the first has a wavelength of 32 pixels and
            each further one half of the one before.
        persistence: Ratio of the amplitudes of successive octaves, in (0, 1].
        min_side: Smallest patch side in pixels.
        max_side_fraction: Largest patch side as a fraction of the image's side, in (0, 1].
        field: "fresh", new noise for every image in every step (Algorithm 1); or "fixed", one
            field for a whole training, as the authors' released code has it: every patch holds
            the upper left part of it. Sizes and places are drawn for every image either way.
    """

    kind: NoiseKind = "simplex"
    strength: float = 0.2
    octaves: int = 6
    persistence: float = 0.6
    min_side: int = 10
    max_side_fraction: float = 1 / 8
    field: NoiseField = "fresh"

    def __post_init__(self) -> None:
        if self.kind not in get_args(NoiseKind):
            raise ConfigError(f"noise kind must be 'simplex' or 'gaussian', got {self.kind!r}")
        if not 0 < self.strength < float("inf"):
            raise ConfigError(f"noise strength must be positive and finite, got {self.strength}")
        if self.octaves < 1:
            raise ConfigError(f"noise needs at least one octave, got {self.octaves}")
        if not 0 < self.persistence <= 1:
            raise ConfigError(f"persistence must be in (0, 1], got {self.persistence}")
        if self.min_side < 1:
            raise ConfigError(f"smallest patch side must be at least 1 pixel, got {self.min_side}")
        if not 0 < self.max_side_fraction <= 1:
            raise ConfigError(
                f"largest patch side as a fraction must be in (0, 1], got {self.max_side_fraction}"
            )
        if self.field not in get_args(NoiseField):
            raise ConfigError(f"noise field must be 'fresh' or 'fixed', got {self.field!r}")

    def side_range(self, side: int) -> tuple[int, int]:
        """Smallest and largest patch side, both included, along an image side of `side` pixels.

        Where the image is too small for the range to hold anything (below 80 pixels with the
        defaults) the patch has one size, ``min(min_side, side)``.
        """
        smallest = min(self.min_side, side)
        return smallest, max(smallest, int(side * self.max_side_fraction))
