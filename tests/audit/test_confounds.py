"""The plain numbers and their AUROC, against scipy, scikit-learn and a published table."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import laplace
from sklearn.metrics import roc_auc_score

from scrd.audit.confounds import confound_table, scalars


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_scalars_of_a_grey_image(dtype):
    white = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, white, (40, 60), dtype, endpoint=True)
    found = scalars(pixels, 1234)
    exact = pixels / white
    assert found["file size"] == 1234
    assert (found["width"], found["height"], found["colour channels"]) == (60, 40, 1)
    assert found["mean brightness"] == pytest.approx(exact.mean(), rel=1e-5)
    assert found["contrast"] == pytest.approx(exact.std(), rel=1e-5)
    assert found["sharpness"] == pytest.approx(laplace(exact)[1:-1, 1:-1].var(), rel=1e-4)
    assert found["near black"] == pytest.approx((exact < 10 / 255).mean())
    assert found["border red minus blue"] == 0


def test_border_is_the_outer_twentieth():
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[..., 1] = 255
    pixels[5:95, 10:190] = (9, 9, 200)
    pixels[:5, :, 0] = 102
    found = scalars(pixels, 1)
    border = np.ones((100, 200), bool)
    border[5:95, 10:190] = False
    assert found["border red minus blue"] == pytest.approx(0.4 * 1000 / border.sum(), rel=1e-6)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))[border].mean() / 255
    assert found["border brightness"] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (2, 5, 3)])
def test_tiny_images_give_finite_numbers(shape):
    assert np.isfinite(list(scalars(np.ones(shape, np.float32), 1).values())).all()


def test_table_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    rows = [{"a": float(a), "b": float(b)} for a, b in rng.integers(0, 9, (90, 2))]
    labels = [0] * 60 + [1] * 30
    splits = ["train"] * 40 + ["test"] * 50
    table = {entry.name: entry for entry in confound_table(rows, labels, splits)}
    for name in ("a", "b"):
        values = [row[name] for row in rows]
        assert table[name].test == pytest.approx(roc_auc_score(labels[40:], values[40:]))
        shift = roc_auc_score([0] * 40 + [1] * 20, values[:60])
        assert table[name].shift == pytest.approx(shift)


def test_one_class_has_no_auroc():
    rows = [{"a": 1.0}, {"a": 2.0}]
    (entry,) = confound_table(rows, [0, 0], ["train", "train"])
    assert (entry.test, entry.shift) == (None, None)
    assert confound_table([], [], []) == ()
