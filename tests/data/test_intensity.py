import numpy as np
import pytest
from PIL import Image

from scrd.data.intensity import Intensity, apply_intensity, fit_intensity

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
    assert fit_intensity(mixed, window=(100, 4000)) == Intensity(100, 4000, 0, "grey")
    with pytest.raises(ValueError, match="different depths .uint16, uint8."):
        fit_intensity(mixed)


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
