import numpy as np
import torch
from planted import small_budget
from scipy.ndimage import gaussian_filter

from scrd.baselines.brightness import Brightness


def test_the_map_is_the_blurred_mean_of_the_channels():
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    answer = Brightness(small_budget()).score(images)
    for image, values in zip(images.numpy(), answer.maps.numpy(), strict=True):
        np.testing.assert_allclose(values, gaussian_filter(image.mean(axis=0), 2), atol=1e-6)
    assert torch.equal(answer.scores, answer.maps.amax(dim=(1, 2)))


def test_points_at_a_bright_patch_and_not_at_a_brighter_speck():
    images = torch.zeros(1, 1, 64, 64)
    images[..., 40:48, 8:16] = 0.7
    images[..., 5, 50] = 1
    (values,) = Brightness(small_budget()).score(images).maps
    y, x = divmod(int(values.argmax()), 64)
    assert 40 <= y < 48 and 8 <= x < 16
