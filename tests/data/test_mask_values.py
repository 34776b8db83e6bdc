"""What people save as masks, and what it means."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scrd.data.mask_values import read_mask
from scrd.errors import ImageError

LESION = np.zeros((64, 80), np.uint8)
LESION[20:40, 30:55] = 1
INSIDE = LESION > 0


def save(folder: Path, pixels: np.ndarray, name: str = "mask.png", **options: object) -> Path:
    path = folder / name
    Image.fromarray(pixels).save(path, **options)
    return path


def rgba(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([colour, colour, colour, alpha])


def palette(folder: Path, indices: np.ndarray, colours: list[int]) -> Path:
    image = Image.fromarray(indices, "P")
    image.putpalette(colours)
    image.save(folder / "mask.png")
    return folder / "mask.png"


VIOLET = np.array([68, 1, 84], np.uint8)
YELLOW = np.array([253, 231, 37], np.uint8)
BLURRED = Image.fromarray(LESION * 255).resize((40, 32), Image.BILINEAR).resize((80, 64))
BOTTOM = np.zeros_like(LESION)
BOTTOM[50:] = 1


@pytest.mark.parametrize(
    "pixels",
    [
        LESION,
        LESION * 255,
        LESION.astype(np.uint16) * 65535,
        LESION.astype(np.uint16) * 300,  # its low byte alone is something else
        INSIDE,
        np.dstack([LESION * 255, LESION * 0, LESION * 0]),  # red
        rgba(LESION * 0, LESION * 255),  # black, and nothing but the transparency tells
        rgba(LESION * 0 + 255, LESION * 255),
        rgba(LESION * 255, LESION * 128),
        rgba(LESION * 255, LESION * 0 + 255),  # opaque
        np.dstack([LESION * 255, LESION * 0 + 255]),
        np.dstack([LESION * 0, LESION * 255]),
    ],
)
def test_masks_of_one_meaning_are_read(tmp_path: Path, pixels: np.ndarray) -> None:
    marked, affine, doubts = read_mask(save(tmp_path, pixels))
    np.testing.assert_array_equal(marked, INSIDE)
    assert (affine, doubts) == (None, ())


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_the_ringing_of_a_jpeg_is_no_lesion(tmp_path: Path, quality: int) -> None:
    path = save(tmp_path, LESION * 255, "mask.jpg", quality=quality)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    np.testing.assert_array_equal(read_mask(path).marked, INSIDE)


def test_a_resized_mask_ends_half_way(tmp_path: Path) -> None:
    marked, _, doubts = read_mask(save(tmp_path, np.asarray(BLURRED)))
    assert 0 < np.mean(marked != INSIDE) < 0.02
    assert doubts == ()


def test_palettes_mean_what_they_show(tmp_path: Path) -> None:
    for colours in ([0, 0, 0, 255, 255, 255], [0, 0, 0, 128, 0, 0]):
        np.testing.assert_array_equal(read_mask(palette(tmp_path, LESION, colours)).marked, INSIDE)
    # tools that make files small sort palettes as they like
    path = palette(tmp_path, 1 - LESION, [255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(path).marked, INSIDE)


@pytest.mark.parametrize(
    ("indices", "colours", "reason"),
    [
        (LESION, [0, 0, 0, 0, 0, 0], "nothing but black"),
        (LESION + BOTTOM * 2, [9, 9, 9, 0, 0, 0, 90, 90, 90], "by its palette than"),
        (LESION, [68, 1, 84, 253, 231, 37], "no zero"),
    ],
)
def test_palettes_that_contradict_their_numbers_are_refused(
    tmp_path: Path, indices: np.ndarray, colours: list[int], reason: str
) -> None:
    with pytest.raises(ImageError, match=reason):
        read_mask(palette(tmp_path, indices, colours))


NOISE = np.random.default_rng(0).integers(0, 256, LESION.shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "name", "reason"),
    [
        (LESION, "mask.jpg", "JPEG whose values reach"),
        (NOISE, "mask.png", "as a picture does"),
        (LESION + 1, "mask.png", "no zero, and 2 values"),
        (np.where(INSIDE[..., None], YELLOW, VIOLET), "mask.png", "no zero, and 2 values"),
        (rgba(LESION * 255, LESION * 0), "mask.png", "transparent everywhere"),
        (rgba(LESION * 255, BOTTOM * 255 + LESION * 90), "mask.png", "by its transparency"),
        (LESION.astype(np.float32) - 1, "mask.tif", "negative"),
    ],
)
def test_masks_without_a_meaning_are_refused(
    tmp_path: Path, pixels: np.ndarray, name: str, reason: str
) -> None:
    path = save(tmp_path, pixels, name)
    with pytest.raises(ImageError, match=reason) as caught:
        read_mask(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("pixels", "doubt"),
    [
        (LESION + 2 * BOTTOM, "2 labels (values 1, 2)"),
        (LESION * 4 + 255 * BOTTOM, "2 labels (values 4, 255)"),
        (np.dstack([LESION, BOTTOM, BOTTOM * 0]) * 255, "2 labels"),
    ],
)
def test_several_labels_are_all_lesion_and_doubted(
    tmp_path: Path, pixels: np.ndarray, doubt: str
) -> None:
    marked, _, doubts = read_mask(save(tmp_path, pixels))
    np.testing.assert_array_equal(marked, INSIDE | (BOTTOM > 0))
    assert len(doubts) == 1
    assert doubt in doubts[0]


def test_nothing_marked_is_nothing_marked(tmp_path: Path) -> None:
    marked, _, doubts = read_mask(save(tmp_path, LESION * 0))
    assert not marked.any()
    assert doubts == ()


def test_a_volume_is_judged_as_a_whole(tmp_path: Path) -> None:
    voxels = np.zeros((20, 24, 6), np.float32)
    voxels[3:6, 4:9, 1], voxels[3:6, 4:9, 4] = 1, 4  # one label a slice
    path = tmp_path / "mask.nii.gz"
    nib.Nifti1Image(voxels, np.diag([-1, -1, 5, 1])).to_filename(path)
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.marked, voxels.transpose(2, 1, 0) > 0)
    np.testing.assert_allclose(mask.affine, np.diag([1, 1, 5, 1]))
    assert "2 labels (values 1, 4)" in mask.doubts[0]
    # resampled with ringing
    nib.Nifti1Image(
        np.where(voxels > 0, 1, np.random.default_rng(0).normal(0, 0.02, voxels.shape)),
        np.diag([-1, -1, 5, 1]),
    ).to_filename(path)
    np.testing.assert_array_equal(read_mask(path).marked, voxels.transpose(2, 1, 0) > 0)
