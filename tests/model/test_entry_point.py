"""A teacher of another package: built by its name, held to what a teacher must do."""

import re
from pathlib import Path

import pytest
import torch

from scrd.model import build_model
from scrd.model.blocks import stage_plan
from scrd.model.entry_point import BENCHMARKED, GROUP
from scrd.model.teacher import build_teacher
from scrd.model.weights import TeacherError


@pytest.fixture
def image():
    return torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))


def test_it_is_built_frozen_and_its_input_left_as_it_is(teacher_package, image):
    teacher_package()
    teacher = build_teacher("tiny")
    assert teacher.channels == (4, 6, 8)
    assert teacher.source == "package tiny-teachers 1.0"
    assert not teacher.train().backbone.training
    assert not any(p.requires_grad for p in teacher.parameters())
    features = teacher(image)
    assert [tuple(u.shape) for u in features] == [(2, 4, 16, 24), (2, 6, 8, 12), (2, 8, 4, 6)]
    for u, v in zip(features, teacher.backbone(image.repeat(1, 3, 1, 1)), strict=True):
        assert torch.equal(u, v)


def test_it_goes_before_a_backbone_of_timm(teacher_package):
    site = teacher_package()
    (site / "tiny_teachers.dist-info" / "entry_points.txt").write_text(
        "[scrd.teachers]\nresnet18 = tiny_teachers:Tiny\n"
    )
    assert build_teacher("resnet18").channels == (4, 6, 8)


@pytest.mark.parametrize("mirrors", ["resnet50", None])
def test_it_says_which_blocks_suit_the_student(mirrors, teacher_package, image):
    line = "" if mirrors is None else f"    mirrors = {mirrors!r}\n"
    teacher_package(("    channels", f"{line}    channels"))
    model = build_model("tiny", image_size=64).eval()
    plan = stage_plan(mirrors or "resnet18")
    assert len(model.student.stage2) == plan.student_depths[1]
    clean = model.encode(image)
    student = model.reconstruct(clean).student
    assert [u.shape for u in clean] == [v.shape for v in student]


@pytest.mark.parametrize("weights", ["random", "weights.safetensors"])
def test_it_takes_no_weights(weights, teacher_package):
    teacher_package()
    with pytest.raises(TeacherError, match=rf"tiny-teachers 1.0 brings its own.*{weights}"):
        build_teacher("tiny", weights)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("class Tiny", "Tiny = dict\n\n\nclass Other", "gives a dict, not an nn.Module"),
        ("channels = (4, 6, 8)", "channels = (4, 6)", "expected 3"),
        ("channels = ", "other = ", "channels"),
        ("channels = ", "mirrors = 'resnet51'\n    channels = ", "'resnet51', not one of resnet18"),
        ("(4, 8, 16)", "(8, 8, 16)", "shapes [(1, 4, 8, 8)"),
        ("image - 0.5)", "image.double())", "double"),
        ("image - 0.5)", "image).half()", "not float32"),
        ("image - 0.5)", "image / 0)", "not finite"),
        ("super().__init__()", "raise OSError('no weights at /nowhere')", "no weights at /nowhere"),
        ("import torch\n", "import torch, not_there\n", "not_there"),
    ],
)
def test_what_is_no_teacher_is_refused_with_its_package_and_the_cause(
    old, new, cause, teacher_package
):
    teacher_package((old, new))
    with pytest.raises(TeacherError, match=re.escape(cause)) as error:
        build_teacher("tiny")
    assert str(error.value).startswith("the teacher tiny of the package tiny-teachers 1.0 cannot")


def test_two_packages_of_one_name_are_refused(teacher_package):
    teacher_package()
    teacher_package(package="other-teachers", version="2.0")
    with pytest.raises(TeacherError, match=r"other-teachers 2\.0 and tiny-teachers 1\.0"):
        build_teacher("tiny")


@pytest.mark.parametrize(
    ("teacher", "folder"),
    [("dinov2_vits14", r"teachers\[dinov2\]'"), ("resnet50v2", "teachers'")],
)
def test_the_package_of_a_benchmarks_teacher_is_named_where_it_is_missing(
    teacher, folder, monkeypatch
):
    monkeypatch.setattr("scrd.model.entry_point.entry_points", lambda **_: ())
    wanted = rf"scrd-benchmark-teachers, which .* is not installed: .* './benchmarks/{folder}"
    with pytest.raises(TeacherError, match=wanted):
        build_teacher(teacher)


def test_the_named_packages_bring_these_teachers():
    project = Path(__file__).parents[2] / "benchmarks" / "teachers" / "pyproject.toml"
    if not project.is_file():
        pytest.skip("the benchmarks are not part of the source distribution")
    text = project.read_text(encoding="utf-8")
    assert 'name = "scrd-benchmark-teachers"' in text
    entries = text.split(f'entry-points."{GROUP}"]')[1].split("[")[0]
    assert set(re.findall(r"^(\w+) =", entries, re.M)) == set(BENCHMARKED)
