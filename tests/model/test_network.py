"""Bottleneck, student and scale head: RD4AD's layers, counted, and shapes for any teacher."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from scrd.model import build_model
from scrd.model.scale_head import ScaleHead
from scrd.objectives.distance import distance_map


def random_model(name, rectify=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return build_model(name, "random", rectify)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "teacher", "student", "bottleneck", "scale_head"),
    [
        ("wide_resnet50_2", 24_862_528, 24_917_504, 58_885_120, 6_147),
        ("resnet18", 2_782_784, 3_703_168, 11_680_000, 1_539),
    ],
)
def test_parameter_counts(name, teacher, student, bottleneck, scale_head):
    with torch.device("meta"), pytest.warns(UserWarning, match="RANDOM"):
        model = build_model(name, "random", rectify=True)
    assert count(model.teacher) == teacher
    assert count(model.student) == student
    assert count(model.scale_head) == scale_head
    assert count(model.bottleneck) == bottleneck


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "resnet18", "resnet50", "convnext_atto", "wide_resnet50_2"]
)
@pytest.mark.parametrize("size", [64, 96])
def test_student_maps_have_the_shapes_of_the_teacher(name, size):
    with torch.device("meta"):
        model = random_model(name, rectify=True).eval()
        clean = model.encode(torch.rand(2, 1, size, size))
        student, alpha, _ = model.reconstruct(clean)
    assert [u.shape for u in clean] == [v.shape for v in student]
    assert [u.shape[-1] for u in clean] == [size // 4, size // 8, size // 16]
    assert alpha.shape == (2, 3)


def test_embedding_is_twice_as_deep_at_half_the_resolution():
    model = random_model("resnet18")
    embedding = model.bottleneck(model.teacher(torch.rand(2, 3, 64, 96)))
    assert embedding.shape == (2, 512, 2, 3)
    assert model.student(embedding)[0].shape == (2, 64, 16, 24)


@pytest.mark.parametrize(
    ("name", "negative"),
    [("resnet18", False), ("efficientnet_lite0", True), ("convnext_atto", True)],
)
def test_student_is_rectified_where_the_teacher_is(name, negative):
    torch.manual_seed(0)
    model = random_model(name).train()
    for v in model.reconstruct(model.encode(torch.rand(2, 3, 64, 64))).student:
        assert bool((v < 0).any()) is negative
        assert (v > 0).any()


@pytest.mark.parametrize("rectify", [True, False])
def test_a_saved_model_can_say_whether_its_student_is_rectified(rectify):
    model = random_model("resnet18", rectify).train()
    student = model.reconstruct(model.encode(torch.rand(2, 3, 64, 64))).student
    assert all(bool((v < 0).any()) is not rectify for v in student)


def test_forward_is_teacher_bottleneck_student_head():
    model = random_model("resnet18").eval()
    image = torch.rand(2, 3, 64, 64)
    maps, alpha = model(image)
    clean = model.teacher(image)
    embedding = model.bottleneck(clean)
    for found, u, v in zip(maps, clean, model.student(embedding), strict=True):
        assert torch.equal(found, distance_map(u, v))
    assert torch.equal(alpha, model.scale_head(embedding))


def test_every_trained_parameter_has_a_gradient():
    model = build_model("efficientnet_lite0").train()
    nn.init.normal_(model.scale_head.linear.weight)
    student, alpha, _ = model.reconstruct(model.encode(torch.rand(2, 3, 64, 64)))
    (sum(v.square().mean() for v in student) + alpha[:, 0].sum()).backward()
    for name, p in model.named_parameters():
        if not name.startswith("teacher."):
            assert p.grad is not None and p.grad.abs().max() > 0, name


def test_scale_weights_start_uniform():
    embedding = torch.randn(5, 8, 3, 4)
    assert torch.equal(ScaleHead(8, 3)(embedding), torch.full((5, 3), 1 / 3))


def test_scale_weights_equal_the_equation():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(4, 8, 3, 5))
    head = ScaleHead(8, 3).double()
    nn.init.normal_(head.linear.weight)
    nn.init.normal_(head.linear.bias)
    alpha = head(torch.from_numpy(embedding)).detach().numpy()
    w, b = (p.detach().numpy() for p in (head.linear.weight, head.linear.bias))
    for i in range(4):
        pooled = [max(embedding[i, c, y, x] for y in range(3) for x in range(5)) for c in range(8)]
        logits = [sum(w[k, c] * pooled[c] for c in range(8)) + b[k] for k in range(3)]
        total = sum(np.exp(logit) for logit in logits)
        np.testing.assert_allclose(alpha[i], [np.exp(logit) / total for logit in logits])
    np.testing.assert_allclose(alpha.sum(axis=1), 1)
    assert alpha.min() > 0


@pytest.mark.parametrize("alpha", [(0.2, 0.3, 0.5), (0.7, 0.3, 0.0), (0.0, 1.0, 0.0)])
def test_fixed_scale_weights_hold_for_every_image(alpha):
    head = ScaleHead(8, 3)
    nn.init.normal_(head.linear.weight)
    nn.init.normal_(head.linear.bias)
    embedding = 100 * torch.randn(6, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    head.fix(torch.tensor(alpha))
    found = head(embedding)
    torch.testing.assert_close(found, torch.tensor([alpha] * 6), atol=3e-6, rtol=0)
    assert (found == found[0]).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6))
