import numpy as np
import torch
from planted import blobs, planted, small_budget

from scrd.audit.confounds import scalars
from scrd.baselines.confounds import NAMES, Confounds, plain_numbers
from scrd.metrics.ranks import auroc


def fitted(images):
    model = Confounds(small_budget())
    model.fit(images)
    return model


def test_numbers_are_those_of_the_check_command():
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    known = scalars(image[0].permute(1, 2, 0).numpy(), file_size=123)
    np.testing.assert_allclose(plain_numbers(image)[0], [known[n] for n in NAMES], rtol=1e-6)


def test_score_is_the_largest_robust_z():
    train, test = blobs(15, seed=0, channels=3), blobs(5, seed=1, channels=3)
    model = fitted(train)
    values = plain_numbers(train).astype(np.float64)
    expected = []
    for row in plain_numbers(test):
        z = []
        for i, number in enumerate(row):
            centre = np.median(values[:, i])
            deviation = np.median(np.abs(values[:, i] - centre))
            spread = 1.4826 * deviation if deviation > 0 else values[:, i].std()
            z.append(abs(number - centre) / max(spread, 1e-6))
        expected.append(max(z))
    np.testing.assert_allclose(model.score(test).scores.numpy(), expected, rtol=1e-3)


def test_a_few_outliers_in_training_do_not_widen_the_spread():
    train = blobs(40, seed=0)
    spoilt = train.clone()
    spoilt[:3] = 1.0
    ratio = fitted(spoilt).spread[0] / fitted(train).spread[0]
    assert 0.7 < ratio < 1.4


def test_a_number_shared_by_most_normals_falls_back_to_the_standard_deviation():
    train = blobs(10, seed=0).clamp_min(0.06)  # nothing near black ...
    train[0, 0, 0, 0] = 0.0  # ... but for one pixel of one image
    near_black = NAMES.index("near black")
    spread = plain_numbers(train)[:, near_black].std()
    assert fitted(train).spread[near_black] == spread
    assert 0 < spread < 1e-3


def test_sees_what_a_plain_number_shows_and_no_more():
    model = fitted(blobs(40, seed=0))
    images, labels = planted(10, seed=1)
    assert auroc(model.score(images).scores.numpy(), labels) > 0.95  # sharpness
    mirrored = images[:10].flip(-1)
    np.testing.assert_allclose(
        model.score(mirrored).scores.numpy(), model.score(images[:10]).scores.numpy(), rtol=1e-3
    )
