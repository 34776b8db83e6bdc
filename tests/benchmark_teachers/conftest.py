import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from scrd.model import build_model

PACKAGE = Path(__file__).parents[2] / "benchmarks" / "teachers"


@pytest.fixture
def installed(monkeypatch):
    """The package's entry points, as an installation would have them."""
    if not PACKAGE.is_dir():
        pytest.skip("the benchmarks are not part of the source distribution")
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    (group,) = project["entry-points"]
    entries = [EntryPoint(n, v, group) for n, v in project["entry-points"][group].items()]

    def found(group, name):
        return [e for e in entries if (e.group, e.name) == (group, name)]

    monkeypatch.setattr("scrd.model.entry_point.entry_points", found)
    for variable in ("SCRD_RESNET50V2", "SCRD_DINOV2_ONNX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.syspath_prepend(PACKAGE)
    yield
    for entry in entries:
        sys.modules.pop(entry.module, None)


@pytest.fixture
def student_shapes():
    """Shapes of what is trained beside a teacher, of its own or with random weights."""

    def shapes(teacher, weights=None, rectify=None):
        model = build_model(teacher, weights, rectify, image_size=64)
        parts = (model.bottleneck, model.student)
        return [{k: v.shape for k, v in part.state_dict().items()} for part in parts]

    def of_random(teacher, rectify):
        with torch.device("meta"), pytest.warns(UserWarning, match="RANDOM"):
            return shapes(teacher, "random", rectify)

    return shapes, of_random
