import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def fuzzing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not (BENCHMARKS / "fuzz_readers.py").is_file():
        pytest.skip("the folder benchmarks is not here")
    if sys.platform != "linux":
        pytest.skip("memory is limited and measured as Linux does it")
    monkeypatch.syspath_prepend(os.fspath(BENCHMARKS))
    import fuzz_readers

    return fuzz_readers


def test_every_seed_is_read(fuzzing: ModuleType, tmp_path: Path) -> None:
    for number, (kind, content) in enumerate(fuzzing.make_seeds()):
        path = tmp_path / str(number)
        path.write_bytes(content)
        for pixels in fuzzing.read_all(path):
            assert pixels.shape[:2] == (43, 37), kind
            assert pixels.std() > 0


def test_broken_files_are_read_or_refused(fuzzing: ModuleType) -> None:
    counts = fuzzing.fuzz(208, seed=7)  # eight of each seed
    assert counts.failures == []
    assert sum(counts.outcomes.values()) == 208
    assert {outcome for _, outcome in counts.outcomes} == {"read", "refused"}
    assert 0 < max(counts.resident.values()) < 2 << 30


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("os._exit(3)", "crash"),
        ("os.abort()", "crash"),
        ("time.sleep(60)", "hang"),
        ("print(json.dumps(['read', '', 3 << 30]), flush=True)", "memory"),
        ("print(json.dumps(['exception', 'KeyError()', 0]), flush=True)", "exception"),
        ("print(json.dumps(['refused', 'no image', 0]), flush=True)", "refused"),
    ],
)
def test_failures_are_seen(
    fuzzing: ModuleType, monkeypatch: pytest.MonkeyPatch, answer: str, outcome: str
) -> None:
    monkeypatch.setattr(fuzzing, "SECONDS", 1)
    program = f"import json, os, sys, time\nfor _ in sys.stdin: {answer}"
    worker = fuzzing.Worker((sys.executable, "-c", program))
    try:
        for _ in range(2):  # a process that has ended is replaced
            assert worker.read(Path("file"))[0] == outcome
    finally:
        worker.stop()


def test_mutants_repeat(fuzzing: ModuleType) -> None:
    for kind, content in fuzzing.make_seeds():
        first, second, third = (
            fuzzing.mutate(kind, content, np.random.default_rng([1, n])) for n in (5, 5, 6)
        )
        assert first == second != third
