import dataclasses

import numpy as np
import pytest
from PIL import Image

from scrd.data.intensity import Intensity, apply_intensity, fit_intensity, series_percentiles

RNG = np.random.default_rng(0)
DEEP = [RNG.normal(20_000, 3_000, (40, 50)).astype(np.uint16) for _ in range(5)]


def test_eight_bit_images_get_the_papers_scale() -> None:
    dark = np.full((4, 4), 3, np.uint8)
    dark[0, 0] = 9
    rule = fit_intensity([dark, dark])
    assert rule == Intensity(0, 255, 0, "grey")
    np.testing.assert_allclose(apply_intensity(dark, rule)[0], dark / 255, rtol=1e-6)


def test_deep_images_get_pooled_percentiles_and_headroom() -> None:
    rule = fit_intensity(iter(DEEP))
    low, high = np.percentile(np.stack(DEEP), (0.1, 99.9))
    assert (rule.low, rule.high) == pytest.approx((low, high), rel=1e-6)
    assert (rule.headroom, rule.channels) == (1, "grey")


def test_percentiles_of_large_images_are_close_to_those_of_all_pixels() -> None:
    pixels = RNG.integers(0, 65536, (700, 700), dtype=np.uint16)
    rule = fit_intensity([pixels])
    assert (rule.low, rule.high) == pytest.approx(np.percentile(pixels, (0.1, 99.9)), abs=40)
    assert fit_intensity([pixels]) == rule


def test_values_outside_the_window_stay_apart_up_to_the_headroom() -> None:
    rule = Intensity(100, 200, 1, "grey")
    values = np.array([[-50, 0, 50, 100, 150, 200, 250, 300, 350]], np.float32)
    expected = [-1, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2]
    np.testing.assert_allclose(apply_intensity(values, rule)[0, 0], expected)
    assert apply_intensity(values, Intensity(100, 200, 0, "grey")).max() == 1


def test_a_given_window_is_used_as_it_is_also_for_mixed_depths() -> None:
    mixed = [DEEP[0], RNG.integers(0, 256, (8, 8), dtype=np.uint8)]
    assert fit_intensity(mixed, window=(100, 40000)) == Intensity(100, 40000, 0, "grey")
    with pytest.raises(ValueError, match="different depths .uint16, uint8."):
        fit_intensity(mixed)


@pytest.mark.parametrize("images", [[DEEP[0]], [np.arange(256, dtype=np.uint8).reshape(16, 16)]])
def test_a_window_per_image_starts_from_that_of_the_data(images) -> None:
    data, image = (fit_intensity(images, window=w) for w in ("data", "image"))
    assert data.scope == "data"
    assert image == dataclasses.replace(data, scope="image")
    assert fit_intensity(images) == data
    assert fit_intensity(images, window=(0, float(images[0].max()))).scope == "data"


def per_image(channels="grey", low=0.0, high=255.0, headroom=0.0) -> Intensity:
    return Intensity(low, high, headroom, channels, scope="image")


@pytest.mark.parametrize(("low", "width"), [(0, 256), (90, 60), (200, 30)])
def test_an_images_own_percentiles_become_0_and_1(low: int, width: int) -> None:
    pixels = RNG.integers(low, low + width, (41, 53)).astype(np.uint8)
    found = apply_intensity(pixels, per_image())
    assert (found.shape, found.dtype) == ((1, 41, 53), np.float32)
    ordered = sorted(pixels.ravel().tolist())

    def percentile(q: float) -> float:
        place = q / 100 * (len(ordered) - 1)
        left = int(place)
        return ordered[left] + (place - left) * (ordered[left + 1] - ordered[left])

    dark, bright = percentile(1), percentile(99)
    expected = np.clip((pixels.astype(float) - dark) / (bright - dark), -0.25, 1.25)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_a_quarter_of_the_width_is_kept_beyond_the_percentiles() -> None:
    pixels = RNG.integers(100, 151, (60, 60)).astype(np.uint8)
    pixels[0, :6] = (0, 95, 99, 152, 156, 255)
    found = apply_intensity(pixels, per_image())[0, 0]
    expected = [-0.25, -0.1, -0.02, 1.04, 1.12, 1.25]
    np.testing.assert_allclose(found[:6], expected, atol=1e-4)


def test_a_brighter_or_more_contrasty_copy_reaches_the_model_alike() -> None:
    pixels = RNG.normal(100, 20, (30, 40)).astype(np.float32)
    rule = per_image(low=0, high=1000, headroom=1)
    found = apply_intensity(pixels, rule)
    np.testing.assert_allclose(apply_intensity(pixels * 3 + 50, rule), found, atol=1e-4)
    data = dataclasses.replace(rule, scope="data")
    assert np.abs(apply_intensity(pixels * 3 + 50, data) - apply_intensity(pixels, data)).min() > 0


def test_a_window_per_image_does_not_hang_on_the_other_images() -> None:
    image = RNG.integers(40, 80, (30, 30)).astype(np.uint8)
    others = [RNG.integers(low, low + 100, (20, 20)).astype(np.uint8) for low in (0, 150)]
    found = [apply_intensity(image, fit_intensity([image, o], window="image")) for o in others]
    np.testing.assert_array_equal(*found)
    # 16 bits: the rule of the data is the first step, which rounding alone can tell
    deep = [(o.astype(np.uint16) * 20) for o in (image, *others)]
    found = [apply_intensity(deep[0], fit_intensity([deep[0], o], window="image")) for o in deep]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    np.testing.assert_allclose(found[0], found[2], atol=1e-4)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_and_nearly_constant_images_do_not_become_noise(value: int) -> None:
    constant = apply_intensity(np.full((9, 9), value, np.uint8), per_image())
    np.testing.assert_array_equal(constant, np.zeros((1, 9, 9)))
    grain = np.full((40, 40), 77, np.uint8)
    grain[::2] += 1
    found = apply_intensity(grain, per_image())
    # one level of 255 is read as a share of a window of 5 %, not blown up to all of it
    np.testing.assert_allclose(np.ptp(found), 1 / 255 / 0.05, rtol=1e-4)


def test_colours_keep_their_relations() -> None:
    rgb = RNG.integers(0, 256, (31, 29, 3)).astype(np.uint8)
    rgb[..., 1] //= 2
    rgb[..., 2] = 100 + rgb[..., 2] // 10
    found = apply_intensity(rgb, per_image("rgb"))
    dark, bright = np.percentile(rgb, (1, 99))
    expected = np.clip((rgb.astype(float) - dark) / (bright - dark), -0.25, 1.25)
    np.testing.assert_allclose(found, np.moveaxis(expected, -1, 0), atol=1e-4)
    assert found[2].std() < 0.2 * found[0].std()
    # a grey rule takes the percentiles of the luma
    grey = apply_intensity(rgb, per_image("grey"))
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    dark, bright = np.percentile(luma, (1, 99))
    np.testing.assert_allclose(
        grey[0], np.clip((luma - dark) / (bright - dark), -0.25, 1.25), atol=1e-4
    )


def test_sixteen_bits_keep_their_levels_in_a_window_per_image() -> None:
    levels = np.arange(30_000, 31_600, dtype=np.uint16).reshape(40, 40)
    rule = fit_intensity([levels], window="image")
    found = apply_intensity(levels, rule)
    # the levels beyond the 0.1 and 99.9 percentiles of the data are within its headroom
    assert len(np.unique(found)) == 1600
    assert (np.diff(found.ravel()) > 0).all()


def test_images_of_mostly_background_keep_their_range() -> None:
    pixels = np.zeros((100, 100), np.uint16)
    pixels[0, :3] = (10, 20, 30)
    assert fit_intensity([pixels]) == Intensity(0, 30, 1, "grey")


def test_sets_without_contrast_and_nonsense_are_refused() -> None:
    for constant in (np.full((4, 4), 7, np.uint8), np.full((4, 4), 7, np.float32)):
        with pytest.raises(ValueError, match="constant: 7"):
            fit_intensity([constant, constant])
    with pytest.raises(ValueError, match="no images"):
        fit_intensity([])
    for low, high in ((5, 5), (6, 5), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ValueError, match="low < high"):
            fit_intensity(DEEP, window=(low, high))


def test_grey_is_told_from_colour() -> None:
    grey = RNG.integers(0, 256, (30, 30), dtype=np.uint8)
    noise = RNG.integers(-5, 6, (30, 30, 3))
    nearly_grey = np.clip(grey[..., None] + noise, 0, 255).astype(np.uint8)
    colour = np.dstack([grey, grey // 2, grey // 4])
    assert fit_intensity([grey, nearly_grey]).channels == "grey"
    assert fit_intensity([colour]).channels == "rgb"
    assert fit_intensity([nearly_grey] * 99 + [colour]).channels == "grey"
    assert fit_intensity([nearly_grey] * 98 + [colour] * 2).channels == "rgb"
    assert fit_intensity([colour], channels="grey").channels == "grey"
    assert fit_intensity([grey], channels="rgb").channels == "rgb"


def test_colour_in_a_narrow_part_of_sixteen_bits_is_seen() -> None:
    # 12 bits in a 16-bit file: the channels differ by less than 8/255 of 65535
    red = RNG.integers(0, 4096, (30, 30)).astype(np.uint16)
    assert fit_intensity([np.dstack([red, red // 2, red // 4])]).channels == "rgb"


def test_luma_is_that_of_pillow_without_its_rounding() -> None:
    rgb = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    luma = apply_intensity(rgb, Intensity(0, 255, 0, "grey"))
    assert luma.shape == (1, 20, 30)
    np.testing.assert_allclose(luma[0] * 255, np.asarray(Image.fromarray(rgb).convert("L")), atol=1)
    assert not np.allclose(luma * 255, np.round(luma * 255), atol=1e-3)


def test_colour_models_repeat_grey_images_and_put_channels_first() -> None:
    rule = Intensity(0, 255, 0, "rgb")
    rgb = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(apply_intensity(rgb, rule)[1], rgb[..., 1] / 255, rtol=1e-6)
    repeated = apply_intensity(rgb[..., 0], rule)
    assert (repeated.shape, repeated.dtype) == ((3, 4, 6), np.float32)
    np.testing.assert_array_equal(repeated[0], repeated[2])


def test_a_window_per_image_undoes_any_gain_also_of_deep_images() -> None:
    normals = [RNG.normal(500, 100, (40, 50)).clip(0).astype(np.uint16) for _ in range(4)]
    rule = fit_intensity(normals, window="image")
    plain = apply_intensity(normals[0], rule)
    for gain in (3, 10):
        brighter = apply_intensity(normals[0] * np.uint16(gain), rule)
        np.testing.assert_allclose(brighter, plain, atol=1e-4)
        assert len(np.unique(brighter)) == len(np.unique(plain))


CHEST = RNG.integers(0, 256, (40, 40), dtype=np.uint8)
DEEP_CHEST = RNG.integers(0, 4096, (40, 40), dtype=np.uint16)
HEAD = np.where(np.arange(4000) < 2800, -1000.0, 40.0).reshape(40, 100).astype(np.float32)
HEAD += RNG.normal(0, 8, HEAD.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("image", "window", "word"),
    [
        (CHEST, (300, 400), "holds 0 % of the pixels"),
        (CHEST, (-100, -1), "holds 0 % of the pixels"),
        (CHEST, (0, 1), "white"),
        (CHEST, (-1000, 1000), "far wider"),
        (CHEST, (0, 65535), "far wider"),
        (DEEP_CHEST, (0, 255), "white"),
        (HEAD, (2000, 3000), "holds 0 % of the pixels"),
        (HEAD, (-100000, 100000), "far wider"),
    ],
)
def test_a_window_in_the_wrong_unit_is_refused_with_the_values_found(image, window, word) -> None:
    with pytest.raises(ValueError, match=word) as error:
        fit_intensity([image], window=window)
    low, high = np.percentile(image, (1, 99))
    assert f"run from {low:.6g} to {high:.6g}" in str(error.value)


@pytest.mark.parametrize(
    ("image", "window"),
    [(CHEST, (0, 255)), (CHEST, (40, 200)), (DEEP_CHEST, (0, 4095)), (HEAD, (0, 80))]
    + [(HEAD, window) for window in ((-1000, 1000), (-1350, 150), (-160, 240), (-1024, 3071))],
)
def test_windows_in_use_are_taken(image, window) -> None:
    rule = fit_intensity([image], window=window)
    assert (rule.low, rule.high) == window


def test_a_rule_acts_by_its_own_constants() -> None:
    pixels = np.arange(101, dtype=np.float32)[None]
    rule = Intensity(0, 255, 0, "grey", "image", dark=10, bright=60, own_headroom=1)
    np.testing.assert_allclose(apply_intensity(pixels, rule)[0, 0, [10, 60]], [0, 1], atol=1e-6)
    assert apply_intensity(pixels, rule).max() == pytest.approx(1.8)
    series = dataclasses.replace(rule, scope="series")
    assert series_percentiles([pixels], series) == pytest.approx((10, 60))
    with pytest.raises(ValueError, match="percentiles"):
        dataclasses.replace(rule, dark=60)
