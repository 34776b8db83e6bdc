"""A teacher is known again by what it answers."""

import pytest
import torch

from scrd.model.fingerprint import (
    TOLERANCE,
    fingerprint,
    known_image,
    require_package,
    require_same_answer,
)
from scrd.model.teacher import build_teacher
from scrd.model.weights import TeacherError


@pytest.fixture
def teacher():
    return build_teacher("efficientnet_lite0")


def test_known_image_is_even_noise():
    image = known_image(128)
    assert image.shape == (1, 3, 128, 128) and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() < 1
    counts = torch.histc(image, 10, 0, 1) / image.numel()
    assert (counts - 0.1).abs().max() < 0.01
    centred = image - image.mean()
    for shift in ((0, 1), (1, 0), (1, 1), (0, 2)):
        product = (centred * centred.roll(shift, (2, 3))).mean() / centred.square().mean()
        assert abs(product) < 0.1


def test_known_image_never_changes():
    expected = [0.0, 0.618034, 0.472136, 0.562306, 0.888544]
    assert known_image(64).flatten()[:5].tolist() == pytest.approx(expected, abs=1e-6)


def test_features_are_mean_and_deviation_of_each_map(teacher):
    found = fingerprint(teacher, 64)
    for u, (mean, std) in zip(teacher(known_image(64)), found.features, strict=True):
        values = u.numpy().astype(float)
        assert (values.mean(), values.std()) == pytest.approx((mean, std))


def test_same_tensors_same_hash(teacher):
    first, again = fingerprint(teacher, 64), fingerprint(build_teacher("efficientnet_lite0"), 64)
    assert first == again and first.package is None
    next(teacher.parameters()).view(-1)[0] += 1e-6
    assert fingerprint(teacher, 64).sha256 != first.sha256


def test_rounding_passes(teacher):
    known = fingerprint(teacher, 64)
    teacher.to(memory_format=torch.channels_last)
    with torch.backends.mkldnn.flags(enabled=False):
        require_same_answer(teacher, known, 64)
    assert fingerprint(teacher, 64).sha256 == known.sha256


def test_another_normalisation_is_refused(teacher):
    known = fingerprint(teacher, 64)
    teacher.mean.copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
    with pytest.raises(TeacherError, match=r"its map at stride 4 .*the version of timm"):
        require_same_answer(teacher, known, 64)


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_tolerance_is_in_standard_deviations(share, teacher):
    known = fingerprint(teacher, 64)
    std = known.features[0][1]

    class Shifted(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            u1, *rest = self.inner(x)
            return [u1 + share * TOLERANCE * std, *rest]

    teacher.backbone = Shifted(teacher.backbone)
    if share < 1:
        require_same_answer(teacher, known, 64)
    else:
        with pytest.raises(TeacherError, match="stride 4"):
            require_same_answer(teacher, known, 64)


def test_package_of_an_entry_point_must_be_here(teacher_package, monkeypatch):
    with monkeypatch.context():
        teacher_package()
        known = fingerprint(build_teacher("tiny"), 64)
        assert known.package == "tiny-teachers 1.0"
        require_package("tiny", known)
    monkeypatch.undo()
    with pytest.raises(TeacherError, match=r"scrd\.teachers that is not.*tiny-teachers 1\.0"):
        require_package("tiny", known)


def test_tied_tensors_are_refused_before_training(teacher_package):
    teacher_package(("\n    def forw", "        self.same = self.scales[0].weight\n\n    def forw"))
    with pytest.raises(TeacherError, match="cannot be saved"):
        fingerprint(build_teacher("tiny"), 64)
