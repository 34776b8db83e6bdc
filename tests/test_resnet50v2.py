"""The ResNet-50 v2 of the benchmarks is the one that its weights' description says."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from scrd.model import build_model
from scrd.model.teacher import build_teacher
from scrd.model.weights import TeacherError

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
PACKAGE = Path(__file__).parents[1] / "benchmarks" / "teachers"
WEIGHTS = Path(__file__).parents[2] / "shared" / "teachers" / "resnet50v2-imagenet.safetensors"


@pytest.fixture
def installed(monkeypatch):
    """The package's entry points, as an installation would have them."""
    if not PACKAGE.is_dir():
        pytest.skip("the benchmarks are not part of the source distribution")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    (group,) = project["entry-points"]
    entries = [EntryPoint(n, v, group) for n, v in project["entry-points"][group].items()]

    def found(group, name):
        return [e for e in entries if (e.group, e.name) == (group, name)]

    monkeypatch.setattr("scrd.model.entry_point.entry_points", found)
    monkeypatch.delenv("SCRD_RESNET50V2", raising=False)
    monkeypatch.syspath_prepend(PACKAGE)
    yield
    sys.modules.pop("scrd_resnet50v2", None)


@pytest.fixture
def weights(installed, monkeypatch):
    if not WEIGHTS.is_file():
        pytest.skip(f"the weights of the ResNet-50 v2 are not here: {WEIGHTS}")
    monkeypatch.setenv("SCRD_RESNET50V2", str(WEIGHTS))


def test_its_maps_have_the_published_statistics(weights):
    teacher = build_teacher("resnet50v2")
    torch.manual_seed(0)
    maps = teacher(torch.rand(1, 3, 64, 64))
    means, stds = (0.07279, 0.02999, 0.02030), (0.12842, 0.06815, 0.04414)
    assert [float(u.mean()) for u in maps] == pytest.approx(means, abs=1e-5)
    assert [float(u.std()) for u in maps] == pytest.approx(stds, abs=1e-5)
    assert all((u >= 0).all() for u in maps)


def test_student_mirrors_a_resnet50(weights):
    found = build_model("resnet50v2", image_size=64)
    assert found.student.rectified
    with torch.device("meta"), pytest.warns(UserWarning, match="RANDOM"):
        reference = build_model("resnet50", "random", True)
    for part in ("bottleneck", "student"):
        shapes = [
            {k: v.shape for k, v in getattr(m, part).state_dict().items()}
            for m in (found, reference)
        ]
        assert shapes[0] == shapes[1]


def test_missing_weights_are_named_with_the_variable(installed, monkeypatch):
    monkeypatch.setenv("SCRD_RESNET50V2", "/nowhere/w.safetensors")
    with pytest.raises(TeacherError, match=r"/nowhere/w\.safetensors: no such file; SCRD_RESNET"):
        build_teacher("resnet50v2")
