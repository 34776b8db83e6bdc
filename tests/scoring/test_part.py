"""An image whose window is that of its series is doubted where the series is but a part."""

from pathlib import Path

import numpy as np
import pytest

from scrd.data.cache import ImageStack
from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing
from scrd.data.series import Series
from scrd.data.source import Source
from scrd.scoring.calibration import Calibration, Level, pool_normals
from scrd.scoring.part import part_of_series
from scrd.scoring.scorer import Inferred, Scorer

NORMALS = Level((0.0, 1.0), (0, 1), images=12, fewest=10)


def source(images):
    if images is None:
        return Source(Path("a.dcm"))
    places = tuple((Path(f"{i}.dcm"), None) for i in range(images))
    return Series("1", "2", None, places).sources[0]


def rule(scope):
    return Intensity(0, 1, 0, "grey", scope)


@pytest.mark.parametrize(
    ("images", "doubted"), [(None, True), (1, True), (5, True), (7, True), (8, False), (30, False)]
)
def test_a_series_much_smaller_than_any_in_training_is_doubted(images, doubted):
    assert bool(part_of_series(source(images), rule("series"), NORMALS)) == doubted


def test_what_does_not_hang_on_the_series_is_not_doubted():
    assert part_of_series(source(1), rule("data"), NORMALS) == ()
    assert part_of_series(source(1), rule("image"), NORMALS) == ()
    assert part_of_series(source(None), rule("series"), Level((0.0,), (0,), 1, 1)) == ()
    assert part_of_series(source(1), rule("series"), Level((0.0,), (0,), 12)) == ()  # an old model


def test_the_smallest_normal_series_is_kept():
    level = pool_normals(np.array([0.0, 1.0, 2.0]), ["a", "a", "b"], ["x", "x", "y"])
    assert (level.fewest, level.images) == (1, 2)


class Flat(Scorer):
    """A network that sees nothing."""

    preprocessing = Preprocessing(rule("series"), 8)
    calibration = Calibration((0.0, 1.0), (0, 1), 0.05, 1.0, 1.0, (0.0, 1.0), "mean", NORMALS)
    contract, fingerprint = Contract(), None

    def infer(self, images, content, maps=True):
        count = len(images)
        return Inferred(np.zeros((count, 8, 8)), {"mean": np.zeros(count)}, np.ones((count, 1)))


@pytest.mark.parametrize("images", [1, 12])
def test_the_doubt_stands_with_the_result(images):
    batch = ImageStack(np.zeros((1, 1, 8, 8), np.float32), (0,), ((8, 8),), (), (("odd",),))
    [scored] = Flat().answers([source(images)], [batch])
    assert scored.doubts[0] == "odd"
    assert len(scored.doubts) == (2 if images == 1 else 1)
