"""From stored pixels to the model's square input, and from its maps back to the source image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scrd.data.intensity import Intensity, apply_intensity


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input; it is saved with the model.

    Attributes:
        intensity: The map of grey values.
        image_size: Side S of the square input in pixels.
        resize: "stretch" fills the square, as the paper does; "letterbox" keeps the aspect
            ratio, centres the image and pads with the value 0 of the intensity scale.
    """

    intensity: Intensity
    image_size: int
    resize: Literal["stretch", "letterbox"] = "stretch"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1: {self.image_size}")
        if self.resize not in ("stretch", "letterbox"):
            raise ValueError(f"resize must be 'stretch' or 'letterbox', not {self.resize!r}")


def prepare(
    pixels: NDArray[Any],
    preprocessing: Preprocessing,
    series_window: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Map the grey values and resize, in floating point, with an antialiased bilinear filter.

    Args:
        pixels: (H, W) or (H, W, 3), uint8, uint16 or float32, stored values.
        preprocessing: The rule.
        series_window: For a rule that needs it, see `apply_intensity`.

    Returns:
        (C, S, S) float32 in the range of `apply_intensity`; C is 1 for grey and 3 for RGB. Values
        are exactly those of `apply_intensity` where the size needs no change.
    """
    image = apply_intensity(pixels, preprocessing.intensity, series_window)
    rows, columns = _content(image.shape[-2:], preprocessing)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    resized = _resized(image, size)
    side = preprocessing.image_size
    if size == (side, side):
        return resized
    padded = np.zeros((image.shape[0], side, side), np.float32)
    padded[:, rows, columns] = resized
    return padded


def map_to_source(
    anomaly_map: NDArray[np.float32],
    source_size: tuple[int, int],
    preprocessing: Preprocessing,
) -> NDArray[np.float32]:
    """Bring a map over the model's input back to the geometry of the source image.

    Args:
        anomaly_map: (S, S) float; S is the `image_size` of the preprocessing.
        source_size: Rows H and columns W of the source image.
        preprocessing: The rule with which the image was prepared.

    Returns:
        (H, W) float32: the padding is cut off and the rest resized bilinearly.

    Raises:
        ValueError: The map is not (S, S).
    """
    values = np.asarray(anomaly_map, np.float32)
    side = preprocessing.image_size
    if values.shape != (side, side):
        raise ValueError(f"the map is {values.shape}, not {(side, side)}")
    rows, columns = _content(source_size, preprocessing)
    resized: NDArray[np.float32] = _resized(values[None, rows, columns], source_size)[0]
    return resized


def content_mask(source_size: tuple[int, int], preprocessing: Preprocessing) -> NDArray[np.bool_]:
    """Tell where the model's input shows the image and not the padding.

    Args:
        source_size: Rows H and columns W of the source image.
        preprocessing: The rule with which the image was prepared.

    Returns:
        (S, S) bool.
    """
    mask = np.zeros((preprocessing.image_size, preprocessing.image_size), np.bool_)
    mask[_content(source_size, preprocessing)] = True
    return mask


def content_masks(
    source_sizes: Sequence[tuple[int, int]], preprocessing: Preprocessing
) -> NDArray[np.bool_]:
    """`content_mask` of several images: (N, S, S) bool."""
    return np.stack([content_mask(size, preprocessing) for size in source_sizes])


def _content(source_size: tuple[int, ...], preprocessing: Preprocessing) -> tuple[slice, slice]:
    """Rows and columns of the model's input that the image fills."""
    side = preprocessing.image_size
    if preprocessing.resize == "stretch":
        return slice(0, side), slice(0, side)
    longest = max(source_size)
    height, width = (max(1, round(length * side / longest)) for length in source_size)
    top, left = (side - height) // 2, (side - width) // 2
    return slice(top, top + height), slice(left, left + width)


def _resized(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize (C, H, W); the same image where the size is the same."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    if width != size[1]:
        image = image @ _filter(width, size[1]).T
    if height != size[0]:
        image = _filter(height, size[0]) @ image
    return np.ascontiguousarray(image, dtype=np.float32)


@lru_cache(maxsize=64)
def _filter(length: int, wanted: int) -> NDArray[np.float32]:
    """The antialiased bilinear filter as a matrix, (wanted, length), rows sum to 1.

    A triangle of half width max(1, length / wanted) pixels around the place of each wanted pixel,
    centres lying at half numbers (PIL's "bilinear", PyTorch's with ``antialias``).
    """
    scale = length / wanted
    reach = max(1.0, scale)
    centres = (np.arange(wanted) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(length)[None] - centres[:, None]) / reach
    weights = np.clip(1 - distance, 0, None)
    normed: NDArray[np.float32] = weights / weights.sum(axis=1, keepdims=True)
    normed = normed.astype(np.float32)
    normed.setflags(write=False)
    return normed
