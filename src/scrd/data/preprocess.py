"""From stored pixels to the model's square input, and from its maps back to the source image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

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
) -> Tensor:
    """Map the grey values and resize, in floating point, with an antialiased bilinear filter.

    Args:
        pixels: (H, W) or (H, W, 3), uint8, uint16 or float32, stored values.
        preprocessing: The rule.
        series_window: For a rule that needs it, see `apply_intensity`.

    Returns:
        (C, S, S) float32 in the range of `apply_intensity`; C is 1 for grey and 3 for RGB. Values
        are exactly those of `apply_intensity` where the size needs no change.
    """
    image = torch.from_numpy(apply_intensity(pixels, preprocessing.intensity, series_window))
    rows, columns = _content(tuple(image.shape[-2:]), preprocessing)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    resized = _resized(image, size)
    side = preprocessing.image_size
    if size == (side, side):
        return resized
    padded = image.new_zeros((image.shape[0], side, side))
    padded[:, rows, columns] = resized
    return padded


def map_to_source(
    anomaly_map: Tensor | NDArray[np.float32],
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
    values = torch.as_tensor(anomaly_map).detach().float().cpu()
    side = preprocessing.image_size
    if values.shape != (side, side):
        raise ValueError(f"the map is {tuple(values.shape)}, not {(side, side)}")
    rows, columns = _content(source_size, preprocessing)
    resized: NDArray[np.float32] = _resized(values[None, rows, columns], source_size)[0].numpy()
    return resized


def content_mask(source_size: tuple[int, int], preprocessing: Preprocessing) -> Tensor:
    """Tell where the model's input shows the image and not the padding.

    Args:
        source_size: Rows H and columns W of the source image.
        preprocessing: The rule with which the image was prepared.

    Returns:
        (S, S) bool.
    """
    mask = torch.zeros(preprocessing.image_size, preprocessing.image_size, dtype=torch.bool)
    mask[_content(source_size, preprocessing)] = True
    return mask


def content_masks(source_sizes: Sequence[tuple[int, int]], preprocessing: Preprocessing) -> Tensor:
    """`content_mask` of several images: (N, S, S) bool."""
    return torch.stack([content_mask(size, preprocessing) for size in source_sizes])


def _content(source_size: tuple[int, ...], preprocessing: Preprocessing) -> tuple[slice, slice]:
    """Rows and columns of the model's input that the image fills."""
    side = preprocessing.image_size
    if preprocessing.resize == "stretch":
        return slice(0, side), slice(0, side)
    longest = max(source_size)
    height, width = (max(1, round(length * side / longest)) for length in source_size)
    top, left = (side - height) // 2, (side - width) // 2
    return slice(top, top + height), slice(left, left + width)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (C, H, W); the same image where the size is the same."""
    if tuple(image.shape[-2:]) == size:
        return image
    return interpolate(
        image[None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]
