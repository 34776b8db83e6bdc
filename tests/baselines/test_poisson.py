"""Poisson blending: against a dense linear solve, and by what defines it."""

import numpy as np
import pytest

from scrd.baselines.poisson import poisson_blend


def dense(source, destination):
    """One row for each pixel: the destination on the border, the source's Laplacian inside."""
    height, width = source.shape
    system, wanted = np.zeros((height * width, height * width)), np.zeros(height * width)
    for y in range(height):
        for x in range(width):
            row = y * width + x
            if y in (0, height - 1) or x in (0, width - 1):
                system[row, row], wanted[row] = 1, destination[y, x]
                continue
            system[row, row], wanted[row] = -4, -4 * source[y, x]
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                system[row, row + dy * width + dx] = 1
                wanted[row] += source[y + dy, x + dx]
    return np.linalg.solve(system, wanted).reshape(height, width)


@pytest.mark.parametrize("shape", [(3, 3), (3, 9), (8, 5), (12, 13)])
def test_it_is_the_dense_solution(shape):
    rng = np.random.default_rng(0)
    source, destination = rng.random((2, 2, *shape))
    before = source.copy(), destination.copy()
    blended = poisson_blend(source, destination)
    for channel in range(2):
        expected = dense(source[channel], destination[channel])
        np.testing.assert_allclose(blended[channel], expected, atol=1e-12)
    assert np.array_equal(source, before[0]) and np.array_equal(destination, before[1])
    single = poisson_blend(source.astype(np.float32), destination.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, blended, atol=1e-5)


def test_border_of_the_destination_and_gradients_of_the_source():
    rng = np.random.default_rng(1)
    source = rng.random((1, 20, 30))
    destination = source + 0.3  # another brightness, which a seamless clone takes over
    assert np.allclose(poisson_blend(source, destination), destination)
    destination = rng.random((1, 20, 30))
    blended = poisson_blend(source, destination)
    for border in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1]):
        assert np.array_equal(blended[border], destination[border])
    assert not np.allclose(blended, source)
