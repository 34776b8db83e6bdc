import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as oracle

from scrd.metrics import pixels


def lesions(seed, images=4, sizes=((24, 30), (16, 20)), levels=None):
    """Noise maps with raised blobs that the masks mark imperfectly; the first has no lesion."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(images):
        height, width = sizes[i % len(sizes)]
        mask = np.zeros((height, width), bool)
        if i:
            mask[3:9, 4:8] = True
            mask[12 : 12 + i, 12:14] = True
        values = rng.normal(size=mask.shape) + ndimage.gaussian_filter(4.0 * mask, 1.5)
        if levels:
            values = np.round(values * levels) / levels
        maps.append(values.astype(np.float32))
        masks.append(mask)
    return maps, masks


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


def naive_aupro(maps, masks, limit):
    """Threshold by threshold, region by region."""
    points = [(0.0, 0.0)]
    background = flat(maps)[~flat(masks)]
    regions = []
    for values, mask in zip(maps, masks, strict=True):
        component, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [values[component == k + 1] for k in range(count)]
    for threshold in np.unique(flat(maps))[::-1]:
        overlap = np.mean([np.mean(region >= threshold) for region in regions])
        points.append((np.mean(background >= threshold), overlap))
    x, y = np.array(points).T
    fine = np.union1d(x[x <= limit], [limit])
    area = 0.0
    for a, b in zip(fine[:-1], fine[1:], strict=True):
        left, right = y[x == a].max(), (y[x == b].min() if b in x else np.interp(b, x, y))
        area += (b - a) * (left + right) / 2
    return area / limit


@pytest.mark.parametrize("levels", [None, 3])
def test_pixel_metrics_are_exact_on_small_sets(levels):
    maps, masks = lesions(0, levels=levels)
    assert pixels.localisation_metrics(maps, masks)["pixel_auroc"] == pytest.approx(
        oracle.roc_auc_score(flat(masks), flat(maps)), abs=1e-12
    )
    assert pixels.localisation_metrics(maps, masks)["pixel_ap"] == pytest.approx(
        oracle.average_precision_score(flat(masks), flat(maps)), abs=1e-12
    )


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_equals_the_naive_loops(levels, limit):
    maps, masks = lesions(1, levels=levels)
    expected = naive_aupro(maps, masks, limit)
    assert pixels.aupro(pixels.tally_pixels(maps, masks), limit) == pytest.approx(
        expected, abs=1e-9
    )


def test_bins_cost_little(monkeypatch):
    maps, masks = lesions(2, images=12, sizes=((200, 300),))
    monkeypatch.setattr(pixels, "_SAMPLE", 1 << 16)
    monkeypatch.setattr(pixels, "BINS", 1 << 12)
    tally = pixels.tally_pixels(maps, masks)
    assert (1 << 11) <= tally.normal.size <= (1 << 12)
    assert tally.normal.sum() + tally.abnormal.sum() == flat(maps).size
    bound = tally.normal.max() / tally.normal.sum() / 2
    auroc = oracle.roc_auc_score(flat(masks), flat(maps))
    precision = oracle.average_precision_score(flat(masks), flat(maps))
    assert 0 < abs(pixels.localisation_metrics(maps, masks)["pixel_auroc"] - auroc) <= bound < 0.005
    assert pixels.localisation_metrics(maps, masks)["pixel_ap"] == pytest.approx(
        precision, abs=1e-4
    )
    binned = pixels.aupro(pixels.tally_pixels(maps, masks))
    monkeypatch.undo()
    assert pixels.aupro(pixels.tally_pixels(maps, masks)) == pytest.approx(binned, abs=1e-3)


def test_small_region_weighs_as_much_as_large():
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    mask[15, 15] = True
    found_large = np.where(mask, 1.0, 0.0)
    found_large[15, 15] = 0.0
    assert pixels.tally_pixels([found_large], [mask]).regions == 2
    # all of the large, none of the small until everything is flagged: overlap from 1/2 to 1
    assert pixels.aupro(pixels.tally_pixels([found_large], [mask]), 1.0) == pytest.approx(0.75)


def test_diagonal_pixels_are_one_region():
    assert pixels.tally_pixels([np.eye(4)], [np.eye(4)]).regions == 1


def test_pointing_hit():
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 2] = 255
    values = np.zeros((4, 5))
    assert not pixels.pointing_hit(values, mask)
    values[1, 2] = 1
    assert pixels.pointing_hit(values, mask)
    values[0, 0] = 1
    assert not pixels.pointing_hit(values, mask)


def test_all_in_one_counts_images_regions_and_hits():
    maps, masks = lesions(3)
    found = pixels.localisation_metrics(maps, masks)
    assert found["pointing_hit_rate"] == np.mean(
        [pixels.pointing_hit(*pair) for pair in zip(maps[1:], masks[1:], strict=True)]
    )
    assert found["aupro"] == pixels.aupro(pixels.tally_pixels(maps, masks), 0.3)
    assert (found["n_images"], found["n_regions"]) == (3, 6)


@pytest.mark.parametrize(
    ("maps", "masks", "cause"),
    [
        ([], [], "0 maps for 0 masks"),
        ([np.eye(3)], [np.eye(3)] * 2, "1 maps for 2 masks"),
        ([np.eye(3)], [np.eye(4)], r"map 0 is \(3, 3\)"),
        ([np.eye(3), np.full((3, 3), np.nan)], [np.eye(3)] * 2, "map 1 holds NaN"),
        ([np.eye(3)], [np.zeros((3, 3))], "no abnormal pixel"),
        ([np.eye(3)], [np.ones((3, 3))], "no normal pixel"),
    ],
)
def test_bad_input_is_named(maps, masks, cause):
    with pytest.raises(ValueError, match=cause):
        pixels.tally_pixels(maps, masks)


def test_fpr_limit_is_checked():
    with pytest.raises(ValueError, match="fpr_limit"):
        pixels.aupro(pixels.tally_pixels(*lesions(4)), fpr_limit=0)
