"""Images without content, and with grey values that training never showed."""

import numpy as np
import pytest

from scrd.data.intensity import Intensity
from scrd.data.plausibility import Plausible, learn_plausible, measure, shifted

EACH = Intensity(0, 255, 0, "grey", scope="image")
HU = Intensity(-1000, 1000, 0, "grey")


def chest(seed, size=(64, 64)):
    """Grey values 0 to 255 with a dark border, a bright middle and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    image = 30 + 180 * np.sin(np.pi * rows) * np.sin(np.pi * columns) + rng.normal(0, 8, size)
    return image.clip(0, 255).astype(np.uint8)


def head(seed, *, bone=700.0, air=-1000.0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64] - 31.5
    distance = np.hypot(rows, columns)
    hu = np.select([distance < 18, distance < 22], [40.0, bone], air)
    return (hu + rng.normal(0, 8, hu.shape)).astype(np.float32)


def known(images, rule, common_unit=True):
    return learn_plausible([measure(i, rule) for i in images], common_unit=common_unit)


@pytest.fixture(scope="module")
def of_chests():
    return known([chest(i) for i in range(30)], EACH)


@pytest.fixture(scope="module")
def of_heads():
    return known([head(i) for i in range(30)], HU)


def test_fresh_normals_are_not_doubted(of_chests, of_heads):
    for seed in range(100, 140):
        assert of_chests.doubts(measure(chest(seed), EACH)) == []
        assert of_heads.doubts(measure(head(seed), HU)) == []
    large = measure(np.kron(chest(7), np.ones((30, 20), np.uint8)), EACH)
    assert of_chests.doubts(large) == []
    assert Plausible().doubts(large) == []


def burnt_in():
    image = np.full((64, 64), 90, np.uint8)
    image[5:8, 5:20] = 255
    return image


def dotted(share):
    image = chest(0)
    image[: int(share * 64)] = 255
    return image


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.full((64, 64), 120, np.uint8), "all pixels have one grey value (120)"),
        (burnt_in(), "98.9 % of the pixels have one grey value; in training at most"),
        (dotted(0.7), "of the pixels have one grey value"),
        ((chest(0) > 120).astype(np.uint8) * 255, "only 2 different grey values"),
        (chest(0) // 64 * 64, "only 4 different grey values"),
        ((chest(0) / 64).astype(np.float32), "in training from"),
        (np.random.default_rng(0).normal(120, 4, (64, 64)).astype(np.uint8), "in training from"),
        (chest(0).astype(np.uint16) * 16, "in training from"),
        (255 - chest(0) // 8, "in training from"),
    ],
)
def test_what_holds_little_or_lies_elsewhere_is_doubted(of_chests, image, word):
    assert word in "; ".join(of_chests.doubts(measure(image, EACH)))


@pytest.mark.parametrize(
    "image",
    [head(3) + 1024, head(3, air=3096), head(3, air=40), head(3, air=40, bone=40), head(3) - 3000],
    ids=["lost intercept", "wrapped", "no air", "water", "far below"],
)
def test_impossible_hounsfield_values_are_doubted(of_heads, image):
    assert of_heads.doubts(measure(image, HU))


def test_without_a_common_unit_a_factor_does_not_matter_but_emptiness_does():
    plausible = known([chest(i) for i in range(9)], EACH, common_unit=False)
    assert plausible.doubts(measure(chest(50).astype(np.float32) * 40 + 7, EACH)) == []
    assert plausible.doubts(measure(np.zeros((9, 9), np.float32), EACH))


@pytest.mark.parametrize("image", [np.zeros((1, 1), np.uint8), burnt_in() // 90, np.eye(20)])
def test_a_model_without_ranges_still_sees_that_there_is_nothing(image):
    assert Plausible().doubts(measure(image, EACH))


def test_empty_slices_are_known_where_volumes_begin_with_them():
    empty = np.zeros((64, 64), np.float32)
    assert known([head(i) for i in range(90)] + [empty] * 10, HU).doubts(measure(empty, HU)) == []
    assert known([head(i) for i in range(200)] + [empty], HU).doubts(measure(empty, HU))


def test_a_slip_in_a_hundred_training_images_does_not_widen_the_ranges():
    faint = (chest(0) / 64).astype(np.float32)
    plausible = known([chest(i) for i in range(150)] + [faint], EACH)
    assert plausible.doubts(measure(faint, EACH))


def test_a_constant_is_told_from_all_pixels():
    image = np.full((700, 700), 5, np.uint8)
    assert measure(image, EACH).constant
    image[3, 1] = 6
    assert not measure(image, EACH).constant


def test_training_images_that_are_lifted_as_a_whole_are_found():
    images = [head(i) for i in range(10)]
    for i in (1, 4, 7):
        images[i] = images[i] + 1024  # the rescale intercept was lost
    assert shifted([measure(i, HU) for i in images]) == [1, 4, 7]
    sound = [head(0), head(1, bone=2800), head(2)[20:44, 20:44], head(3), head(4)]
    assert shifted([measure(i, HU) for i in sound]) == []
    assert shifted([measure(i, HU) for i in images[:2]]) == []
