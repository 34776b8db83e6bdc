from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

Picture = NDArray[np.uint8]


@pytest.fixture
def picture() -> Callable[[int], Picture]:
    """A maker of grey pictures with a texture of their own: (80, 96) uint8."""

    def make(number: int) -> Picture:
        noise = np.random.default_rng(number).normal(size=(80, 96))
        smooth = ndimage.gaussian_filter(noise, 2)
        return np.asarray(np.clip(128 + 60 * smooth / smooth.std(), 0, 255), np.uint8)

    return make
