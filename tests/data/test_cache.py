import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scrd.data.prepared as prepared
from scrd.data.cache import iter_batches, joined, load_images
from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing, prepare
from scrd.data.reading import read_image
from scrd.data.source import Series, Source

RULE = Preprocessing(Intensity(0, 255, 0, "rgb"), 16)
BROKEN = (2, 5)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(9):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        if number in BROKEN:
            path.write_bytes(b"" if number == 2 else b"nonsense")
        else:
            pixels = rng.integers(0, 256, (10 + number, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("memory_limit", [0, 10**9], ids=["disk", "memory"])
def test_all_readable_images_are_stacked_in_order(
    paths: list[Path], tmp_path: Path, memory_limit: int
) -> None:
    progress: list[int] = []
    folder = tmp_path / "cache"
    stack = load_images(
        paths,
        RULE,
        memory_limit=memory_limit,
        folder=folder,
        workers=3,
        on_progress=progress.append,
    )
    readable = [number for number in range(9) if number not in BROKEN]
    assert stack.index == tuple(readable)
    assert stack.source_sizes == tuple((10 + number, 20) for number in readable)
    assert [(e.path, e.reason) for e in stack.failures] == [
        (paths[2], "the file is empty"),
        (paths[5], "not a PNG, JPEG, TIFF, BMP, DICOM or NIfTI image"),
    ]
    expected = np.stack([prepare(read_image(paths[number]), RULE) for number in readable])
    assert stack.images.dtype == np.float32
    np.testing.assert_array_equal(stack.images, expected)
    assert progress == list(range(1, 10))
    # the file on the disk has no name that could be left behind
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_stack_on_the_disk_is_not_in_memory(paths: list[Path], tmp_path: Path) -> None:
    in_memory = load_images(paths, RULE, memory_limit=10**9)
    on_disk = load_images(paths, RULE, memory_limit=9 * 3 * 16 * 16 * 4 - 1, folder=tmp_path)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc to see what is mapped")

    def is_mapped_file(images: np.ndarray) -> bool:
        for line in maps.read_text().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= images.ctypes.data < end:
                return str(tmp_path) in line
        return False

    assert is_mapped_file(on_disk.images)
    assert not is_mapped_file(in_memory.images)


def test_too_little_disk_is_said_before_anything_is_read(paths: list[Path], tmp_path: Path) -> None:
    huge = Preprocessing(Intensity(0, 255, 0, "rgb"), 10_000_000)
    with pytest.raises(OSError, match="GB free on this disk"):
        load_images(paths, huge, memory_limit=0, folder=tmp_path)


def test_each_file_is_decoded_once(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []

    def counting(source: Source) -> np.ndarray:
        decoded.append(source.path)
        return read_image(source)

    monkeypatch.setattr(prepared, "read_image", counting)
    load_images(paths, RULE, memory_limit=10**9)
    assert sorted(decoded) == paths


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_hold_the_same_images(paths: list[Path], batch_size: int) -> None:
    whole = load_images(paths, RULE, memory_limit=10**9)
    batches = list(iter_batches(iter(paths), RULE, batch_size=batch_size, workers=2))
    assert len(batches) == -(-9 // batch_size)
    assert sum((batch.index for batch in batches), ()) == whole.index
    assert sum((batch.source_sizes for batch in batches), ()) == whole.source_sizes
    assert [e.path for b in batches for e in b.failures] == [e.path for e in whole.failures]
    every = np.concatenate([batch.images for batch in batches])
    np.testing.assert_array_equal(every, whole.images)
    if batch_size == 1:
        assert batches[2].images.shape == (0, 3, 16, 16)


@pytest.mark.parametrize("parts", [[1] * 9, [2, 1, 3, 3], [9]], ids=str)
def test_stacks_of_some_images_each_are_joined_to_one_of_all(paths: list[Path], parts) -> None:
    rest = iter(paths)
    stacks = [
        stack
        for count in parts
        for stack in iter_batches(list(islice(rest, count)), RULE, batch_size=9)
    ]
    (whole,) = iter_batches(paths, RULE, batch_size=9)
    one = joined(stacks)
    np.testing.assert_array_equal(one.images, whole.images)
    for name in ("index", "source_sizes", "doubts", "facts", "covariates"):
        assert getattr(one, name) == getattr(whole, name)
    assert list(map(str, one.failures)) == list(map(str, whole.failures))


def test_batches_read_ahead_by_a_bounded_number_and_leave_no_threads(paths: list[Path]) -> None:
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield paths[0]

    batches = iter_batches(endless(), RULE, batch_size=5, workers=2)
    for _ in range(4):
        next(batches)
    assert asked <= 4 * 5 + 4 * 2
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("scrd-read")]


def test_errors_that_are_not_about_the_image_are_not_swallowed(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> np.ndarray:
        raise RuntimeError("a defect")

    monkeypatch.setattr(prepared, "read_image", failing)
    with pytest.raises(RuntimeError, match="a defect"):
        load_images(paths, RULE, memory_limit=10**9)


def test_an_image_of_one_grey_value_is_refused_and_an_empty_slice_is_not(tmp_path: Path) -> None:
    empty = np.full((9, 9), 40, np.uint8)
    Image.fromarray(empty).save(path := tmp_path / "empty.png")
    (batch,) = iter_batches([path, Source(path)], RULE, batch_size=2)
    assert [f.reason for f in batch.failures] == 2 * [
        "all pixels have one grey value (40): there is nothing to see"
    ]
    assert len(load_images([path], RULE, memory_limit=10**9).failures) == 1
    contract = Contract()
    (batch,) = iter_batches([path], RULE, batch_size=2, contract=contract, any_kind=True)
    assert "nothing to see" in batch.doubts[0][0]
    volume = Series("1", "1", None, ((path, None), (path, None)))
    (batch,) = iter_batches(volume.sources, RULE, batch_size=2, contract=contract)
    assert batch.index == (0, 1)
    assert "nothing to see" in batch.doubts[0][0]
