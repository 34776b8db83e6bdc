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
    point = {"side": 64, "batch": 4}
    if what == "score":
        point["images"] = 6
        growth.measure_point(tmp_path, "fit", point)
    found = growth.measure_point(tmp_path, what, point)
    assert min(found["seconds"]) > 0 and len(found["seconds_per_image"]) == len(found["seconds"])
    assert 0 < found["bytes"] <= found["bytes_in_all"]
