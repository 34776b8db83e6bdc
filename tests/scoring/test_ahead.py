"""Batches that are scored ahead, as for a GPU, give the results of those that are not."""

import time

import numpy as np
import pytest
from PIL import Image

from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing
from scrd.errors import ImageError
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Inferred, Scorer


class Slow(Scorer):
    """Means; the first batches take longest."""

    preprocessing = Preprocessing(Intensity(0, 255, 0, "grey", "data"), 32)
    calibration = Calibration((0.0, 1.0), (0, 1), 0.5, 0.5, 1.0, (0.0, 1.0), "mean")
    contract, fingerprint = Contract(), None

    def __init__(self, together):
        self.together, self.calls = together, 0

    def infer(self, images, content, *, maps=True):
        self.calls += 1
        time.sleep(max(0.0, 0.05 - 0.01 * self.calls))
        means = images.mean(axis=(1, 2, 3)).astype(np.float64)
        shown = images[:, 0] if maps else images[:0, 0]
        return Inferred(shown, {"mean": means}, np.ones((len(images), 1), np.float32))


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(23):
        pixels = generator.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
    for broken in (0, 8, 9, 10, 11, 17):  # 8 to 11 are a whole batch
        (tmp_path / f"{broken:02d}.png").write_bytes(b"nonsense")
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize("together", [2, 4])
def test_the_same_results_in_the_same_order(files, together):
    ours = list(Slow(together).score(files, batch_size=4))
    theirs = list(Slow(1).score(files, batch_size=4))
    assert [r.path for r in ours] == [r.path for r in theirs] == files
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(b, ImageError):
            assert str(a) == str(b)
        else:
            assert a.score == b.score and np.array_equal(a.input_map, b.input_map)


@pytest.mark.parametrize("together", [1, 3])
def test_maps_only_when_asked_for_and_an_early_end(files, together):
    scorer = Slow(together)
    results = scorer.score(files * 20, batch_size=4, maps=False)
    next(results), next(results)
    results.close()
    assert scorer.calls <= 2 * together + 1  # nobody scores what nobody wants
    scored = [r for r in Slow(together).score(files, maps=False) if not isinstance(r, ImageError)]
    assert len(scored) == 17 and all(r.input_map.shape == (0, 0) for r in scored)


def test_an_error_of_the_network_arrives(files, monkeypatch):
    def fails(self, images, content, *, maps=True):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Slow, "infer", fails)
    for together in (1, 3):
        with pytest.raises(RuntimeError, match="out of memory"):
            list(Slow(together).score(files))
