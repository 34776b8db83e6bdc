"""The linear map from stored grey values to the model's input; its rule is fixed in training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scrd.data.sample import even_places

Channels = Literal["grey", "rgb"]
Scope = Literal["data", "image", "series"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_PERCENTILES = (0.1, 99.9)
_OWN_PERCENTILES = (1, 99)
_OWN_HEADROOM = 0.25
_LEAST_WIDTH = 0.05
_MOST_WHITE = 0.5  # of the pixels brighter than the window's low end
_LEAST_INSIDE = 0.02  # of the pixels
_LEAST_USED = 0.2  # of the window
_RANGES_OF_DEPTHS = (1, 255, 1023, 4095, 65535)
_GREY_TOLERANCE = 8 / 255  # of the window: what JPEG leaves between the channels of grey images
_GREY_SHARE = 0.99
_SAMPLES_PER_IMAGE = 65_536


@dataclass(frozen=True)
class Intensity:
    """The rule v -> (v - low) / (high - low), clipped to [-headroom, 1 + headroom].

    Attributes:
        low: Stored value that becomes 0.
        high: Stored value that becomes 1.
        headroom: How far beyond 0 and 1 values are kept, in widths of the window.
        channels: "grey" (RGB images become their ITU-R BT.601 luma, in floating point) or "rgb"
            (grey images are repeated three times).
        scope: Whose window: "data", this one; or "image" or "series", where instead of clipping
            there two percentiles, over all pixels and channels, of the image or of its whole
            series become 0 and 1, and some of that width is kept on either side. Intensities of
            MR have no common unit, and those of pictures hang on exposure.
        dark: The percentile that becomes 0 for these two scopes.
        bright: The one that becomes 1.
        own_headroom: What they keep on either side, in widths of that window.
        least_width: Narrowest window of an image, as a share of high - low: a nearly constant
            image must not become noise.

    The defaults of the last four are what models mean that were saved without them: a rule of new
    models is changed in `fit_intensity`, never here.
    """

    low: float
    high: float
    headroom: float
    channels: Channels
    scope: Scope = "data"
    dark: float = 1.0
    bright: float = 99.0
    own_headroom: float = 0.25
    least_width: float = 0.05

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"an intensity window needs low < high, not {self.low}..{self.high}")
        if not self.headroom >= 0:
            raise ValueError(f"headroom must not be negative: {self.headroom}")
        if self.channels not in ("grey", "rgb"):
            raise ValueError(f"channels must be 'grey' or 'rgb', not {self.channels!r}")
        if self.scope not in ("data", "image", "series"):
            raise ValueError(f"scope must be 'data', 'image' or 'series', not {self.scope!r}")
        if not 0 <= self.dark < self.bright <= 100:
            raise ValueError(f"percentiles must rise from 0 to 100: {self.dark}, {self.bright}")
        if not (self.own_headroom >= 0 and self.least_width > 0):
            raise ValueError("the headroom must not be negative, the least width be positive")

    @property
    def reach(self) -> float:
        """How far beyond 0 and 1 values are kept, whatever the scope."""
        return self.headroom if self.scope == "data" else self.own_headroom


def fit_intensity(
    images: Iterable[NDArray[Any]],
    *,
    window: tuple[float, float] | Scope = "data",
    channels: Literal["auto"] | Channels = "auto",
) -> Intensity:
    """Choose the rule from training images.

    The window is the given one, without headroom; else, for "data", and as a first step for
    "image" and "series" (see `Intensity.scope`), 0..255 without headroom where all images are
    uint8 (as the paper has it); else the 0.1 and 99.9 percentiles of all images together, with a
    headroom of one window width, so that brighter and darker levels are not merged. The
    percentiles are of at most 65,536 pixels an image, drawn with a fixed seed.

    With channels "auto", the rule is grey when at least 99 % of the images are: one channel, or
    three that differ by no more than 8/255 of the window on average.

    Args:
        images: Training images (H, W) or (H, W, 3) as `read_image` returns them; a few hundred
            are enough. They are taken one at a time.
        window: Values (low, high) that become 0 and 1, or the scope of the rule.
        channels: What the model sees.

    Returns:
        The rule.

    Raises:
        ValueError: No images, images that are all one constant value, images of different
            depths without a window, or a window that is not low < high or does not fit them.
    """
    rng = np.random.default_rng(0)
    samples: list[NDArray[np.float32]] = []
    depths: set[str] = set()
    for pixels in images:
        depths.add(str(pixels.dtype))
        values = pixels.reshape(-1, 1 if pixels.ndim == 2 else 3)
        if len(values) > _SAMPLES_PER_IMAGE:
            values = values[rng.integers(len(values), size=_SAMPLES_PER_IMAGE)]
        samples.append(values.astype(np.float32))
    if not samples:
        raise ValueError("no images to fit the intensity window on")
    if len(depths) > 1 and isinstance(window, str):
        raise ValueError(
            f"the training images have different depths ({', '.join(sorted(depths))}), so that "
            "equal values need not mean equal brightness: give an intensity window"
        )
    lowest = min(float(values.min()) for values in samples)
    highest = max(float(values.max()) for values in samples)
    if lowest == highest:
        raise ValueError(f"all training images are constant: {lowest:g}")

    headroom = 0.0
    if not isinstance(window, str):
        low, high = float(window[0]), float(window[1])
    elif depths == {"uint8"}:
        low, high = 0.0, 255.0
    else:
        low, high, headroom = 0.0, 0.0, 1.0
    if channels == "auto":
        width = high - low if headroom == 0 else highest - lowest
        grey = sum(_looks_grey(values, _GREY_TOLERANCE * width) for values in samples)
        channels = "grey" if grey >= _GREY_SHARE * len(samples) else "rgb"
    if headroom > 0:
        pooled = np.concatenate([_with_channels(values, channels).ravel() for values in samples])
        low, high = (float(value) for value in np.percentile(pooled, _PERCENTILES))
        if low == high:  # more than 99.8 % of all pixels are background
            low, high = lowest, highest
    scope = window if isinstance(window, str) else "data"
    rule = Intensity(
        low,
        high,
        headroom,
        channels,
        scope,
        dark=_OWN_PERCENTILES[0],
        bright=_OWN_PERCENTILES[1],
        own_headroom=_OWN_HEADROOM,
        least_width=_LEAST_WIDTH,
    )
    if not isinstance(window, str):
        _refuse_misfit(samples, low, high)
    return rule


def is_range_of_a_depth(window: tuple[float, float]) -> bool:
    """Whether a window is what pixels of 1, 8, 10, 12 or 16 bits can hold, such as 0..255."""
    return window[0] == 0 and window[1] in _RANGES_OF_DEPTHS


def _refuse_misfit(samples: Sequence[NDArray[np.float32]], low: float, high: float) -> None:
    """Raise ValueError where a window leaves little of the training images to see.

    A window may well cut off most of an image, as that of the brain does with air and bone.
    """
    values = np.concatenate([sample.ravel() for sample in samples])
    first, last = (float(end) for end in np.percentile(values, _OWN_PERCENTILES))
    inside = float(((values >= low) & (values <= high)).mean())
    above = values[values > low]
    if inside < _LEAST_INSIDE:
        what = f"holds {100 * inside:.2g} % of the pixels, the others would be black or white"
    elif (above > high).mean() > _MOST_WHITE:
        what = f"would make {100 * (values > high).mean():.3g} % of the pixels white"
    elif last - first < _LEAST_USED * (high - low):
        what = "is far wider than the images' values, which would be one grey"
    else:
        return
    raise ValueError(
        f"the window {low:g},{high:g} {what}: the values of the training images run from "
        f"{first:.6g} to {last:.6g}"
    )


def apply_intensity(
    pixels: NDArray[Any],
    intensity: Intensity,
    series_window: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Map source values to the model's scale.

    Args:
        pixels: (H, W) or (H, W, 3), uint8, uint16 or float32, source values.
        intensity: The rule.
        series_window: (low, high), the window of the image's series, for a rule of that scope.
            Without it the image counts as its whole series.

    Returns:
        (C, H, W) float32 in [-reach, 1 + reach], see `Intensity.reach`; C is 1 for grey and 3 for
        RGB.
    """
    values = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    values = _with_channels(values.astype(np.float32), intensity.channels)
    low, high = intensity.low, intensity.high
    if intensity.scope == "series":
        low, high = series_window or series_percentiles([pixels], intensity)
    scaled = (values - np.float32(low)) / np.float32(high - low)
    headroom = intensity.reach
    if intensity.scope == "image":
        dark, bright = np.percentile(scaled, (intensity.dark, intensity.bright))
        width = max(float(bright - dark), intensity.least_width)
        scaled = (scaled - np.float32(dark)) / np.float32(width)
    np.clip(scaled, -headroom, 1 + headroom, out=scaled)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 0))


def series_percentiles(images: Iterable[NDArray[Any]], intensity: Intensity) -> tuple[float, float]:
    """The window of a series: two percentiles of all its pixels.

    Args:
        images: (H, W) or (H, W, 3) each, taken one at a time; every pixel counts up to 65,536 an
            image, beyond that an even sample.
        intensity: The rule, which says which percentiles.

    Returns:
        (low, high), low < high: where the percentiles are equal, the extremes; a constant series
        has a window one unit wide.
    """
    samples = []
    for pixels in images:
        flat = pixels.reshape(-1)
        samples.append(flat[even_places(flat.size, _SAMPLES_PER_IMAGE)].astype(np.float32))
    pooled = np.concatenate(samples)
    percentiles = (intensity.dark, intensity.bright)
    low, high = (float(value) for value in np.percentile(pooled, percentiles))
    if not low < high:
        low, high = float(pooled.min()), float(pooled.max())
    return (low, high) if low < high else (low, low + 1)


def _with_channels(values: NDArray[np.float32], channels: Channels) -> NDArray[np.float32]:
    """Bring (..., 1 or 3) to (..., 1) for grey or (..., 3) for RGB."""
    if channels == "grey":
        return values if values.shape[-1] == 1 else (values @ _LUMA)[..., np.newaxis]
    return values if values.shape[-1] == 3 else np.repeat(values, 3, axis=-1)


def _looks_grey(values: NDArray[np.float32], tolerance: float) -> bool:
    """Tell whether the channels of (N, C) differ by no more than the tolerance on average."""
    if values.shape[-1] == 1:
        return True
    differences = np.abs(values - np.roll(values, 1, axis=-1)).mean(axis=0)
    return bool(differences.max() <= tolerance)
