import time

import numpy as np
import pytest
from matplotlib import colormaps

from scrd.report.overlay import MAX_SIDE, MIN_SIDE, display_image, heat_overlay

CONTOUR = (0, 229, 255)
SIZE = (360, 400)


def flat(value=100, size=SIZE):
    return np.full(size, value, np.uint8)


def count(image, colour):
    return int((np.asarray(image) == np.array(colour)).all(-1).sum())


def inferno(level):
    return np.array(colormaps["inferno"](int(level * 255))[:3]) * 255


def test_a_map_at_the_low_end_leaves_the_image_as_it_is():
    picture = heat_overlay(flat(), np.zeros(SIZE, np.float32), scale=(0.0, 1.0))
    assert count(picture, (100, 100, 100)) == 2 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("level", [0.25, 0.5, 1.0])
def test_colour_is_the_scales_and_opacity_its_value(level):
    values = np.full(SIZE, 10 + 4 * level, np.float32)
    picture = heat_overlay(flat(), values, scale=(10.0, 14.0))
    expected = 100 + (inferno(level) - 100) * 0.8 * level
    near = (np.abs(np.asarray(picture, float) - expected) <= 1).all(-1)
    assert near.sum() >= SIZE[0] * SIZE[1]
    assert count(picture, (100, 100, 100)) >= SIZE[0] * SIZE[1]


def test_values_beyond_the_scale_are_drawn_as_its_ends():
    def draw(low, high):
        values = np.full(SIZE, low, np.float32)
        values[100:200] = high
        return np.asarray(heat_overlay(flat(), values, scale=(0.0, 1.0)))

    np.testing.assert_array_equal(draw(-7, 50), draw(0, 1))


def test_contour_surrounds_what_reaches_the_threshold():
    values = np.zeros(SIZE, np.float32)
    values[100:150, 200:300] = 0.5
    without = heat_overlay(flat(), values, scale=(0.0, 1.0))
    with_line = heat_overlay(flat(), values, scale=(0.0, 1.0), threshold=0.5)
    assert count(without, CONTOUR) == 0
    # a line two pixels wide around 50 x 100 pixels, and the colour bar's mark
    assert 600 <= count(with_line, CONTOUR) <= 600 + 200


def test_colour_sources_keep_their_colour_beside_a_grey_copy():
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:] = 200, 100, 50
    picture = heat_overlay(pixels, np.zeros(SIZE, np.float32), scale=(0.0, 1.0))
    assert count(picture, (200, 100, 50)) == SIZE[0] * SIZE[1]
    luminance = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert count(picture, (luminance,) * 3) == SIZE[0] * SIZE[1]


@pytest.mark.parametrize(
    ("size", "panel"),
    [
        ((64, 32), (MIN_SIDE, MIN_SIDE // 2)),
        ((400, 500), (400, 500)),
        ((3000, 1500), (MAX_SIDE, MAX_SIDE // 2)),
    ],
)
def test_small_images_are_enlarged_and_large_ones_reduced(size, panel):
    picture = heat_overlay(flat(size=size), np.zeros((8, 8), np.float32), scale=(0.0, 1.0))
    assert count(picture, (100, 100, 100)) == 2 * panel[0] * panel[1]
    assert picture.mode == "RGB"


def test_long_texts_do_not_change_the_size():
    values = np.zeros(SIZE, np.float32)
    plain = heat_overlay(flat(), values, scale=(0.0, 1.0))
    long = heat_overlay(
        flat(), values, scale=(0.0, 1.0), title="folder/" * 90 + "é\n漢.png", caption="score " * 90
    )
    assert long.size == plain.size
    # nothing is written over the panels
    assert count(long, (100, 100, 100)) == count(plain, (100, 100, 100))


def test_sixteen_bits_are_shown_through_the_window():
    pixels = np.array([[900, 1000, 1050, 1100, 60000]], np.uint16)
    shown = display_image(pixels, (1000, 1100))
    assert shown.dtype == np.uint8
    assert shown.tolist() == [[0, 0, 127, 255, 255]]


def test_without_a_window_deep_images_use_percentiles_and_8_bits_stay():
    ramp = np.arange(20_000, 20_000 + 300 * 300, dtype=np.float32).reshape(300, 300)
    shown = display_image(ramp)
    low, high = np.percentile(ramp, [0.5, 99.5])
    expected = np.clip((ramp - low) / (high - low) * 255, 0, 255)
    assert np.abs(shown - expected).max() <= 1.01
    dim = np.array([[3, 4], [5, 6]], np.uint8)
    np.testing.assert_array_equal(display_image(dim), dim)
    assert display_image(np.full((2, 1), 7, np.uint16)).tolist() == [[0], [0]]
    assert display_image(np.array([[np.nan, 1.0]], np.float32), (0, 1)).tolist() == [[0, 255]]


def test_pixels_and_map_are_not_changed():
    pixels, values = flat(), np.random.default_rng(0).random(SIZE).astype(np.float32)
    before = pixels.copy(), values.copy()
    heat_overlay(pixels, values, scale=(0.0, 1.0), threshold=0.5)
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(values, before[1])


def test_quick_enough_for_one_picture_per_scored_image():
    pixels, values = flat(size=(512, 512)), np.random.default_rng(0).random((512, 512))
    seconds = []
    for _ in range(4):
        start = time.process_time()
        heat_overlay(pixels, values, scale=(0.0, 1.0), threshold=0.5, title="name")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1


@pytest.mark.parametrize(
    ("pixels", "values", "scale", "cause"),
    [
        (flat(), np.zeros(SIZE), (1.0, 1.0), "scale"),
        (flat(), np.zeros((3, *SIZE)), (0.0, 1.0), "anomaly map"),
        (flat(size=(*SIZE, 4)), np.zeros(SIZE), (0.0, 1.0), "an image is"),
        (flat(size=(4,)), np.zeros(SIZE), (0.0, 1.0), "an image is"),
    ],
)
def test_bad_input_is_named(pixels, values, scale, cause):
    with pytest.raises(ValueError, match=cause):
        heat_overlay(pixels, values, scale=scale)
