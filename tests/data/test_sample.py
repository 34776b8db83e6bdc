import numpy as np
import pytest

from scrd.data.sample import even, even_pixels, even_places


@pytest.mark.parametrize(("count", "at_most"), [(511, 256), (257, 256), (7, 3), (3, 7), (0, 5)])
def test_as_many_as_allowed_are_taken_from_all_over(count: int, at_most: int) -> None:
    places = even_places(count, at_most).tolist()
    assert len(places) == min(count, at_most)
    assert places == sorted(set(places))
    if count > at_most:
        gaps = np.diff([*places, count])
        assert places[0] == 0
        assert gaps.max() - gaps.min() <= 1
    assert even(range(count), at_most) == places


@pytest.mark.parametrize("size", [(4096, 4096), (1, 100_000), (100_000, 1), (30, 40), (3, 9000)])
def test_pixels_come_from_all_rows_and_columns(size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    some = even_pixels(np.dstack([rows, columns, rows]), 16_384)
    assert some.shape[0] * some.shape[1] <= 16_384
    assert some.shape[0] * some.shape[1] > 0.9 * min(16_384, size[0] * size[1])
    for axis, length in ((0, size[0]), (1, size[1])):
        assert length - some[..., axis].max() <= -(-length // some.shape[axis])
