import numpy as np
import pytest
import torch
from scipy.ndimage import laplace
from sklearn.linear_model import LinearRegression

from scrd.model.acquisition import ExpectedExcess, acquisition
from scrd.model.constants import FARTHEST, OFFSET, Constants

RNG = np.random.default_rng(0)


def batch(channels=1, count=4):
    return torch.from_numpy(RNG.uniform(0, 1, (count, channels, 12, 10))).float()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_three_numbers_are_numpys(channels):
    images = batch(channels)
    found = acquisition(images, torch.ones(4, 12, 10, dtype=torch.bool))
    for row, image in zip(found.numpy(), images.numpy(), strict=True):
        grey = image.mean(axis=0)
        edges = laplace(grey)[1:-1, 1:-1]
        expected = [grey.mean(), grey.std(), np.log((edges**2).mean())]
        np.testing.assert_allclose(row, expected, rtol=1e-4)


def test_padding_has_no_part_in_them():
    images = batch()
    content = torch.zeros(4, 12, 10, dtype=torch.bool)
    content[:, 2:10] = True
    found = acquisition(images, content)
    cut = acquisition(images[:, :, 2:10], torch.ones(4, 8, 10, dtype=torch.bool))
    torch.testing.assert_close(found, cut)
    images[:, :, :2], images[:, :, 10:] = 7, -3
    torch.testing.assert_close(acquisition(images, content), found)


def planted(count=400):
    covariates = RNG.normal((0.4, 0.2, -3), (0.1, 0.05, 0.5), (count, 3))
    noise = RNG.normal(0, (0.1, 0.2), (count, 2))
    logs = covariates @ [[1.0, 0.0], [2.0, -3.0], [0.3, 0.0]] + (-1, 0) + noise
    excess = np.exp(logs) - OFFSET
    return torch.from_numpy(excess.clip(0)).float(), torch.from_numpy(covariates).float()


def test_the_regression_is_scikit_learns():
    excess, covariates = planted()
    model = ExpectedExcess(2, Constants())
    model.fit(excess, covariates, adjust=True)
    inside = ((covariates - covariates.mean(0)) / covariates.std(0)).abs().amax(1) < FARTHEST
    logs = (excess + OFFSET).double().log().numpy()
    oracle = LinearRegression().fit(covariates.numpy(), logs)
    left = logs - oracle.predict(covariates.numpy())
    found = model(excess, covariates).numpy()
    np.testing.assert_allclose(found[inside], (left / left.std(axis=0))[inside], atol=0.03)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-3)


def test_without_adjustment_the_covariates_do_not_matter():
    excess, covariates = planted()
    model = ExpectedExcess(2, Constants())
    model.fit(excess, covariates, adjust=False)
    logs = (excess + OFFSET).double().log()
    expected = (logs - logs.mean(0)) / logs.std(0, correction=0)
    torch.testing.assert_close(model(excess, covariates), expected.float())
    torch.testing.assert_close(model(excess, 100 * covariates), expected.float())


def test_covariates_far_from_normals_are_taken_as_three_deviations_away():
    excess, covariates = planted()
    model = ExpectedExcess(2, Constants())
    model.fit(excess, covariates, adjust=True)
    center, spread = covariates.mean(0), covariates.std(0, correction=0)
    one = torch.ones(1, 2)
    bound, far, near = (model(one, (center + n * spread)[None]) for n in (FARTHEST, 50, 2))
    torch.testing.assert_close(far, bound)
    assert (near - bound).abs().min() > 0.01


def test_a_covariate_that_never_varies_does_no_harm():
    excess, covariates = planted()
    covariates[:, 1] = 0.2
    model = ExpectedExcess(2, Constants())
    model.fit(excess, covariates, adjust=True)
    assert torch.isfinite(model(excess, covariates)).all()
