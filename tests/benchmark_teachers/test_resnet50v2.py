"""The ResNet-50 v2 of the benchmarks is the one that its weights' description says."""

from pathlib import Path

import pytest
import torch

from scrd.model import build_model
from scrd.model.teacher import build_teacher
from scrd.model.weights import TeacherError

WEIGHTS = Path(__file__).parents[3] / "shared" / "teachers" / "resnet50v2-imagenet.safetensors"


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


def test_student_mirrors_a_resnet50(weights, student_shapes):
    shapes, of_random = student_shapes
    assert build_model("resnet50v2", image_size=64).student.rectified
    assert shapes("resnet50v2") == of_random("resnet50", True)


def test_missing_weights_are_named_with_the_variable(installed, monkeypatch):
    monkeypatch.setenv("SCRD_RESNET50V2", "/nowhere/w.safetensors")
    with pytest.raises(TeacherError, match=r"/nowhere/w\.safetensors: no such file; SCRD_RESNET"):
        build_teacher("resnet50v2")
