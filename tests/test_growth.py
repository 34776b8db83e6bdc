"""The benchmark of growth still measures what there is."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def growth(benchmark_module):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is asked of Linux")
    return benchmark_module("growth")


@pytest.mark.parametrize("what", ["score", "train"])
def test_every_kind_of_point_can_be_measured(growth, tmp_path, what):
    if what == "train":
        found = growth.train_step(64, 4)
    else:
        growth.fit_model(tmp_path, 64)
        found = growth.score(tmp_path, 64, 4, 6)
    assert min(found["seconds"]) > 0 and len(found["seconds_per_image"]) == len(found["seconds"])
    # a process that has freed much already need not grow; the benchmark has one for each point
    assert found["bytes"] <= found["bytes_in_all"] and found["bytes_in_all"] > 0
