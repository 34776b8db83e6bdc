from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from scrd.data.intensity import Intensity, apply_intensity, fit_intensity
from scrd.data.preprocess import Preprocessing, content_mask, map_to_source, prepare
from scrd.data.reading import read_image

PLAIN = Intensity(0, 1, 0, "grey")
LEVELS = np.arange(877, 877 + 245, dtype=np.uint16)


def levels_image() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.resize(LEVELS, 64 * 64)).reshape(64, 64)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_levels_arrive_at_the_model(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(levels_image()).save(path)
    pixels = read_image(path)
    image = prepare(pixels, Preprocessing(fit_intensity([pixels]), 64))
    assert image.shape == (1, 64, 64)
    levels = np.unique(image)
    assert len(levels) == 245
    # in the order of the stored values, evenly spaced
    steps = np.diff(levels)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_levels_arrive_at_the_model(
    tmp_path: Path, suffix: str, png16: Callable[..., bytes]
) -> None:
    grey = levels_image()
    colour = np.dstack([grey, grey.T, grey[::-1]])
    path = tmp_path / f"image{suffix}"
    if suffix == ".png":
        path.write_bytes(png16(colour))
    else:
        tifffile.imwrite(path, colour, photometric="rgb")
    pixels = read_image(path)
    image = prepare(pixels, Preprocessing(fit_intensity([pixels]), 64))
    assert [len(np.unique(plane)) for plane in image] == [245] * 3


def test_more_levels_than_eight_bits_survive_a_resize() -> None:
    pixels = levels_image()
    image = prepare(pixels, Preprocessing(fit_intensity([pixels]), 48))
    assert len(np.unique(image)) > 1000


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    intensity = Intensity(0, 255, 0, "rgb")
    for resize in ("stretch", "letterbox"):
        image = prepare(pixels, Preprocessing(intensity, 32, resize))
        np.testing.assert_array_equal(image, apply_intensity(pixels, intensity))


@pytest.mark.parametrize("size", [(100, 37), (37, 100), (20, 24), (64, 64)])
def test_stretching_is_pillows_antialiased_bilinear_filter(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).random(size, dtype=np.float32)
    image = prepare(pixels, Preprocessing(PLAIN, 32))
    expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(image[0], np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize(("size", "inside"), [((40, 80), (16, 32)), ((99, 33), (32, 11))])
def test_letterbox_keeps_the_aspect_ratio_and_pads_with_zero(
    size: tuple[int, int], inside: tuple[int, int]
) -> None:
    rule = Preprocessing(Intensity(100, 200, 1, "grey"), 32, "letterbox")
    image = prepare(np.full(size, 180, np.uint16), rule)[0]
    mask = content_mask(size, rule)
    assert int(mask.sum()) == inside[0] * inside[1]
    np.testing.assert_allclose(image, 0.8 * mask, rtol=1e-6)
    rows, columns = np.nonzero(mask)
    for places, length in ((rows, inside[0]), (columns, inside[1])):
        before, after = int(places.min()), 31 - int(places.max())
        assert before + length + after == 32
        assert 0 <= after - before <= 1


def test_a_line_of_pixels_is_letterboxed_too() -> None:
    rule = Preprocessing(PLAIN, 8, "letterbox")
    assert int(content_mask((1, 1000), rule).sum()) == 8
    assert prepare(np.ones((1, 1000), np.float32), rule).sum() == pytest.approx(8)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(60, 180), (180, 60), (64, 64), (20, 31), (700, 512)])
def test_a_bright_spot_comes_back_to_its_place(resize: str, size: tuple[int, int]) -> None:
    rule = Preprocessing(PLAIN, 64, resize)
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    for row, column in ((height // 4, width * 2 // 3), (height // 2, width // 8)):
        sigma = 0.06 * max(size)
        spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
        back = map_to_source(prepare(spot.astype(np.float32), rule)[0], size, rule)
        assert (back.shape, back.dtype) == (size, np.float32)
        weights = np.where(back > back.max() / 2, back, 0)
        half_pixel = 0.5 * max(1, height / 64, width / 64)
        expected = np.where(spot > spot.max() / 2, spot, 0)
        for places in (rows, columns):
            centre = (places * weights).sum() / weights.sum()
            true_centre = (places * expected).sum() / expected.sum()
            assert centre == pytest.approx(true_centre, abs=half_pixel)


def test_padding_does_not_leak_into_the_map() -> None:
    rule = Preprocessing(PLAIN, 32, "letterbox")
    mask = content_mask((30, 90), rule)
    anomaly_map = np.where(mask, 1.0, 1000.0)
    np.testing.assert_allclose(map_to_source(anomaly_map, (30, 90), rule), 1, rtol=1e-6)


def test_maps_are_enlarged_with_plain_bilinear_weights() -> None:
    rule = Preprocessing(PLAIN, 16)
    anomaly_map = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(anomaly_map)[None, None], (50, 40), mode="bilinear", align_corners=False
    )[0, 0]
    actual = map_to_source(anomaly_map, (50, 40), rule)
    np.testing.assert_allclose(actual, expected.numpy(), atol=1e-6)
    with pytest.raises(ValueError, match=r"\(15, 16\), not \(16, 16\)"):
        map_to_source(anomaly_map[1:], (50, 40), rule)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size"):
        Preprocessing(PLAIN, 0)
    with pytest.raises(ValueError, match="resize"):
        Preprocessing(PLAIN, 32, "crop")  # type: ignore[arg-type]
