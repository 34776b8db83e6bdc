import os
import signal
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from PIL import Image

from scrd.data.cache import iter_batches
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing
from scrd.errors import ScrdError

PREPROCESSING = Preprocessing(Intensity(0, 255, 0, "grey", "image"), 64)


@pytest.fixture
def pictures(tmp_path):
    """Thirty pictures, one of which is broken and one of which is empty."""
    generator = np.random.default_rng(0)
    for i in range(30):
        pixels = generator.integers(0, 255, (40 + i, 50), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(np.full((40, 50), 9, np.uint8)).save(tmp_path / "21.png")
    return sorted(tmp_path.iterdir())


def read(pictures, processes):
    return list(iter_batches(pictures, PREPROCESSING, batch_size=7, processes=processes))


def test_processes_read_what_threads_read(pictures):
    ours, theirs = read(pictures, 2), read(pictures, 0)
    assert [b.index for b in ours] == [b.index for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.images, b.images)
        assert (a.source_sizes, a.doubts, a.facts) == (b.source_sizes, b.doubts, b.facts)
        assert [str(f) for f in a.failures] == [str(f) for f in b.failures]
    assert sum(len(b.failures) for b in ours) == 2


def test_many_more_than_lie_in_the_shared_memory_and_an_early_end(pictures, monkeypatch):
    made = []

    class Noted(SharedMemory):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            made.append(self.name)

    monkeypatch.setattr("scrd.data.reading_pool.SharedMemory", Noted)
    many = pictures * 4
    batches = iter_batches(many, PREPROCESSING, batch_size=16, processes=1)
    first = next(batches)
    kept = first.images.copy()
    seen = sum(len(b.index) + len(b.failures) for b in batches)
    assert seen == len(many) - 16
    assert np.array_equal(first.images, kept)
    batches = iter_batches(many, PREPROCESSING, batch_size=4, processes=1)
    next(batches)
    batches.close()
    assert len(made) == 2
    for name in made:  # nothing is left behind
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def test_a_process_that_dies_is_told(pictures, monkeypatch):
    batches = iter_batches(pictures * 4, PREPROCESSING, batch_size=4, processes=1)
    next(batches)
    import multiprocessing

    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ScrdError, match="a process that reads images died"):
        list(batches)
