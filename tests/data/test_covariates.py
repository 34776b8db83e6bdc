"""Plain numbers of an image against their twin in PyTorch, and what a header adds."""

import dataclasses

import numpy as np
import pytest
import torch

from scrd.data.covariates import ACQUISITION, acquisition, covariates
from scrd.data.formats.info import ImageInfo
from scrd.model import acquisition as twin

RNG = np.random.default_rng(0)


def whole(count, side):
    return np.ones((count, side, side), np.bool_)


def twins(images, content):
    return twin.acquisition(torch.from_numpy(images), torch.from_numpy(content)).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_numbers_are_those_of_the_twin(channels):
    images = RNG.uniform(-0.2, 1.2, (5, channels, 64, 64)).astype(np.float32)
    content = whole(5, 64)
    found = acquisition(images, content)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, twins(images, content), rtol=1e-4)
    assert twin.COVARIATES == ACQUISITION


def test_padding_has_no_part_in_them():
    images = RNG.uniform(0, 1, (3, 1, 32, 32)).astype(np.float32)
    content = whole(3, 32)
    content[1, :6] = content[1, 26:] = content[2, :, :9] = content[2, :, 30:] = False
    found = acquisition(images, content)
    np.testing.assert_allclose(found, twins(images, content), rtol=1e-4)
    images[1, :, :6] = 7
    np.testing.assert_array_equal(acquisition(images, content), found)


def test_images_without_edges_have_numbers_too():
    images = np.full((2, 1, 8, 8), 0.25, np.float32)
    content = whole(2, 8)
    content[1, 2:] = False
    np.testing.assert_allclose(acquisition(images, content), [[0.25, 0, np.log(1e-8)]] * 2)


def test_a_header_tells_spacing_maker_and_kind():
    info = ImageInfo(40, 30, 1, 16, "DICOM", spacing=(0.5, 0.7), manufacturer="ACME")
    found = covariates((30, 40), info, np.array([0.1, 0.2, -3.0]))
    assert (found.width, found.height, found.spacing) == (40, 30, (0.5, 0.7))
    assert (found.manufacturer, found.format) == ("ACME", "DICOM")
    assert (found.brightness, found.contrast, found.sharpness) == (0.1, 0.2, -3.0)
    other = covariates((30, 40), dataclasses.replace(info, format="PNG"), np.zeros(3))
    assert other.format == "picture"
    unread = covariates((30, 40), None, np.zeros(3))
    assert (unread.spacing, unread.manufacturer, unread.format) == (None, None, None)
