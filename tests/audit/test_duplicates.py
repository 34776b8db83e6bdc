"""Copies are found in every orientation and tone; alike but different images are not."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scrd.audit.duplicates import (
    ORIENTATIONS,
    SIZE,
    components,
    equal_groups,
    luminance,
    near_duplicates,
    oriented,
    thumbnail,
)

SIDE = 200


def anatomy(count, seed=0, common=0.7):
    """Heads of nearly one shape, with a bright rim and soft tissue of their own inside."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    layout = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 25)
    images = []
    for _ in range(count):
        width, height = 0.75 + rng.uniform(-0.04, 0.04), 0.9 + rng.uniform(-0.04, 0.04)
        radius = np.hypot(x / width, y / height)
        shell = np.exp(-(((radius - 1) / 0.05) ** 2))
        tissue = common * layout / layout.std()
        for scale in (3, 7, 15):
            layer = gaussian_filter(rng.standard_normal((SIDE, SIDE)), scale)
            tissue = tissue + 0.4 * layer / layer.std()
        images.append(np.clip(0.45 + 0.1 * tissue, 0.05, 0.95) * (radius < 1) * 0.9 + 0.5 * shell)
    return [np.clip(image, 0, 1) * 0.8 for image in images]


def small(images):
    return np.stack([thumbnail(image) for image in images])


def filtered(image, how):
    picture = Image.fromarray(np.uint8(255 * image))
    return np.asarray(how(picture)) / 255


CHANGES = {
    "mirrored left-right": lambda a: a[:, ::-1],
    "mirrored top-bottom": lambda a: a[::-1],
    "turned 90° counter-clockwise": np.rot90,
    "turned 180°": lambda a: np.rot90(a, 2),
    "turned 90° clockwise": lambda a: np.rot90(a, -1),
    "mirrored along the falling diagonal": np.transpose,
    "mirrored along the rising diagonal": lambda a: np.rot90(a, 2).T,
    "brightened": lambda a: np.clip(a * 1.5 + 0.05, 0, 1),
    "darkened": lambda a: 0.4 * a,
    "more contrast": lambda a: a.mean() + 1.2 * (a - a.mean()),
    "inverted": lambda a: 0.8 - a,
    "brightened by gamma": lambda a: a**0.5,
    "darkened by gamma": lambda a: a**2,
    "nearly the same": lambda a: filtered(a, lambda p: p.resize((140, 140))),
    "nearly the same, sharpened": lambda a: filtered(a, lambda p: p.filter(ImageFilter.SHARPEN)),
    "turned 180°, brightened": lambda a: np.rot90(a, 2) + 0.1,
}


@pytest.mark.parametrize("words", CHANGES)
def test_every_kind_of_copy_is_found_and_named(words):
    images = anatomy(12)
    pairs = near_duplicates(small([*images, CHANGES[words](images[5])]))
    assert [(pair.first, pair.second) for pair in pairs] == [(5, 12)]
    assert pairs[0].transform == words.split(" by ")[0].removesuffix(", sharpened")
    assert 0.8 < pairs[0].similarity <= 1


def test_alike_layouts_are_no_copies():
    images = small(anatomy(60, common=3))
    flat = images.reshape(60, -1)
    assert np.corrcoef(flat)[np.triu_indices(60, 1)].max() > 0.9
    assert near_duplicates(images) == []


def test_a_frame_shared_by_all_is_no_evidence():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    view = np.hypot(x, y) < 0.95
    skin = [gaussian_filter(rng.standard_normal((SIDE, SIDE)), 3) for _ in range(200)]
    images = [view * (0.5 + 0.02 * layer / layer.std()) for layer in skin]
    pairs = near_duplicates(small([*images, np.rot90(images[7])]))
    assert [(pair.first, pair.second) for pair in pairs] == [(7, 200)]


def test_images_without_texture_match_nothing():
    images = [np.zeros((50, 60)), np.zeros((70, 20)), np.full((64, 64), 0.1), *anatomy(3)]
    assert near_duplicates(small(images)) == []
    assert near_duplicates(np.empty((0, SIZE, SIZE), np.float32)) == []


def test_faint_sixteen_bit_copies_are_found():
    images = [1000 + np.round(20 * image) for image in anatomy(4)]
    pairs = near_duplicates(small([*images, images[2][:, ::-1]]) / 65535)
    assert [(p.first, p.second, p.transform) for p in pairs] == [(2, 4, "mirrored left-right")]


def test_pairs_found_over_several_blocks():
    images = [anatomy(1, seed)[0] for seed in range(30)]
    thumbnails = small(images)
    noise = np.random.default_rng(0).standard_normal((1000, SIZE, SIZE)).astype(np.float32)
    noise = gaussian_filter(noise, (0, 1, 1))
    pairs = near_duplicates(np.concatenate([thumbnails, noise, oriented(thumbnails, 4)]))
    assert [(pair.first, pair.second) for pair in pairs] == [(k, 1030 + k) for k in range(30)]


def test_bad_thumbnails_are_refused():
    with pytest.raises(ValueError, match="shape"):
        near_duplicates(np.zeros((3, 32, 32)))
    with pytest.raises(ValueError, match="finite"):
        near_duplicates(np.full((3, SIZE, SIZE), np.nan))


@pytest.mark.parametrize("shape", [(64, 64), (128, 96), (50, 37), (1, 5)])
def test_thumbnail_is_the_area_average(shape):
    image = np.random.default_rng(0).random(shape)
    # Oracle: repeat every pixel until the cells hold whole numbers of them.
    fine = np.kron(image, np.ones((SIZE, SIZE)))
    cells = fine.reshape(SIZE, shape[0], SIZE, shape[1])
    np.testing.assert_allclose(thumbnail(image), cells.mean((1, 3)), rtol=1e-5)


def test_orientations_are_the_eight_of_the_square():
    image = np.arange(9).reshape(3, 3)
    views = {oriented(image, turn).tobytes() for turn in range(len(ORIENTATIONS))}
    assert len(views) == 8
    assert np.array_equal(oriented(image, 0), image)


def test_luminance_follows_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"), float)
    assert np.abs(luminance(pixels) - expected).max() <= 1
    assert luminance(pixels[..., 0]).dtype == np.float32


def test_components_agree_with_scipy():
    links = np.random.default_rng(0).integers(0, 60, (35, 2))
    _, labels = connected_components(coo_array((np.ones(35), links.T), shape=(60, 60)), False)
    assert components(60, links.tolist()) == equal_groups(labels.tolist())


def test_equal_groups():
    assert equal_groups(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]
