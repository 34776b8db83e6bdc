"""The linear map from stored grey values to the model's input; its rule is fixed in training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Channels = Literal["grey", "rgb"]
Scope = Literal["data", "image", "series"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_PERCENTILES = (0.1, 99.9)
_OWN_PERCENTILES = (1, 99)
_OWN_HEADROOM = 0.25
_LEAST_WIDTH = 0.05  # of the window: a nearly constant image must not become noise
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
            there the 1st and 99th percentile, over all pixels and channels, of the image or of
            its whole series become 0 and 1, and a quarter of that width is kept on either side.
            Intensities of MR have no common unit, and those of pictures hang on exposure.
    """

    low: float
    high: float
    headroom: float
    channels: Channels
    scope: Scope = "data"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"an intensity window needs low < high, not {self.low}..{self.high}")
        if not self.headroom >= 0:
            raise ValueError(f"headroom must not be negative: {self.headroom}")
        if self.channels not in ("grey", "rgb"):
            raise ValueError(f"channels must be 'grey' or 'rgb', not {self.channels!r}")
        if self.scope not in ("data", "image", "series"):
            raise ValueError(f"scope must be 'data', 'image' or 'series', not {self.scope!r}")


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
            depths without a window, or a window that is not low < high.
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
    return Intensity(low, high, headroom, channels, scope)


def apply_intensity(
    pixels: NDArray[Any],
    intensity: Intensity,
    series_window: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Map source values to the model's scale.

    Args:
        pixels: (H, W) or (H, W, 3), uint8, uint16 or float32, source values.
        intensity: The rule.
        series_window: (low, high), the 1st and 99th percentile of the image's series, for a rule
            of that scope. Without it the image counts as its whole series.

    Returns:
        (C, H, W) float32 in [-headroom, 1 + headroom], or in [-0.25, 1.25] for a rule per image
        or series; C is 1 for grey and 3 for RGB.
    """
    values = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    values = _with_channels(values.astype(np.float32), intensity.channels)
    low, high = intensity.low, intensity.high
    if intensity.scope == "series":
        low, high = series_window or series_percentiles([pixels])
    scaled = (values - np.float32(low)) / np.float32(high - low)
    headroom = _OWN_HEADROOM
    if intensity.scope == "data":
        headroom = intensity.headroom
    elif intensity.scope == "image":
        dark, bright = np.percentile(scaled, _OWN_PERCENTILES)
        width = max(float(bright - dark), _LEAST_WIDTH)
        scaled = (scaled - np.float32(dark)) / np.float32(width)
    np.clip(scaled, -headroom, 1 + headroom, out=scaled)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 0))


def series_percentiles(images: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """The window of a series: the 1st and 99th percentile of all its pixels.

    Args:
        images: (H, W) or (H, W, 3) each, taken one at a time; every pixel counts up to 65,536 an
            image, beyond that an even sample.

    Returns:
        (low, high), low < high: where the percentiles are equal, the extremes; a constant series
        has a window one unit wide.
    """
    samples = []
    for pixels in images:
        flat = pixels.reshape(-1)
        samples.append(flat[:: -(-flat.size // _SAMPLES_PER_IMAGE)].astype(np.float32))
    pooled = np.concatenate(samples)
    low, high = (float(value) for value in np.percentile(pooled, _OWN_PERCENTILES))
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
