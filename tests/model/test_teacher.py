"""The teacher: frozen for good, the same for grey and colour, refused where it cannot serve."""

import warnings

import pytest
import timm
import torch

from scrd.config import Config
from scrd.model import build_model
from scrd.model.teacher import build_teacher
from scrd.model.weights import TeacherError
from scrd.system.devices import make_fabric
from scrd.training.loop import train


@pytest.fixture
def images():
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def random_teacher(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return build_teacher(name, "random")


def test_random_weights_are_said_loudly():
    with pytest.warns(UserWarning, match="resnet18 has RANDOM weights"):
        teacher = build_teacher("resnet18", "random")
    assert teacher.source == "random"


def test_real_weights_raise_no_warning(recwarn):
    assert build_teacher("efficientnet_lite0").source != "random"
    assert not recwarn.list


def test_stays_in_eval_mode_and_its_statistics_never_move(images):
    model = build_model("efficientnet_lite0").train()
    assert model.bottleneck.training and model.student.training
    assert not any(module.training for module in model.teacher.modules())

    before = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    clean = model.encode(images)
    student = model.reconstruct(clean).student
    for name, tensor in model.teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    sum(v.square().mean() for v in student).backward()
    assert not any(u.requires_grad for u in clean)
    for parameter in model.teacher.parameters():
        assert not parameter.requires_grad and parameter.grad is None


@pytest.mark.parametrize("objective", ["paper", "srd", "scrd"])
def test_training_moves_all_but_the_teacher(images, objective):
    model = build_model("efficientnet_lite0", objective=objective, image_size=64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = Config(image_size=64, batch_size=2, iterations=2, objective=objective)
    train(model, images, config, fabric=make_fabric("32-true", "cpu"))
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    parts = {
        "paper": {"bottleneck", "student", "scale_head"},
        "srd": {"bottleneck", "student", "scaler"},  # its scale weights are fitted after training
        "scrd": {"lesion_head"},
    }[objective]
    assert moved == {k for k in before if k.split(".")[0] in parts}


def test_gradient_passes_no_further_than_the_features(images):
    teacher = build_teacher("efficientnet_lite0")
    assert not any(u.requires_grad for u in teacher(images.requires_grad_()))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_grey_is_the_grey_image_in_three_channels(name, images):
    teacher = random_teacher(name)
    grey = images[:, :1]
    for a, b in zip(teacher(grey), teacher(grey.repeat(1, 3, 1, 1)), strict=True):
        assert torch.equal(a, b)
    colour = teacher(images)
    assert not torch.allclose(colour[0], teacher(grey)[0])


def test_input_is_normalised_as_the_weights_were_trained(images):
    teacher = build_teacher("efficientnet_lite0")
    assert teacher.mean.flatten().tolist() == teacher.std.flatten().tolist() == [0.5] * 3
    for a, b in zip(teacher(images), teacher.backbone(2 * images - 1), strict=True):
        torch.testing.assert_close(a, b)
    resnet = random_teacher("resnet18")
    assert resnet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert resnet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("efficientnet_lite0", (24, 40, 112)),
        ("resnet18", (64, 128, 256)),
        ("convnext_atto", (40, 80, 160)),
        ("swin_tiny_patch4_window7_224", (96, 192, 384)),  # gives its maps channels last
    ],
)
def test_three_maps_at_strides_4_8_16(name, channels):
    teacher = random_teacher(name)
    assert teacher.channels == channels
    size = 224 if name.startswith("swin") else 96
    features = teacher(torch.rand(1, 3, size, size))
    shapes = [(1, c, size // s, size // s) for c, s in zip(channels, (4, 8, 16), strict=True)]
    assert [tuple(u.shape) for u in features] == shapes


def test_each_map_is_the_last_of_its_stride(images):
    teacher = build_teacher("efficientnet_lite0", trainable=True)
    full = timm.create_model("tf_efficientnet_lite0").eval()
    full.load_state_dict(teacher.backbone.state_dict(), strict=False)
    with torch.no_grad():
        x = full.bn1(full.conv_stem(2 * images - 1))
        by_stride = {}
        for stage in full.blocks:
            x = stage(x)
            by_stride[64 // x.shape[-1]] = x
    for stride, u in zip((4, 8, 16), teacher(images), strict=True):
        torch.testing.assert_close(u, by_stride[stride])


@pytest.mark.parametrize(
    ("name", "rectified"),
    [("resnet18", True), ("efficientnet_lite0", False), ("convnext_atto", False)],
)
def test_knows_whether_its_features_take_negative_values(name, rectified):
    assert random_teacher(name).is_rectified() is rectified


def test_backbone_without_fine_maps_is_refused_for_its_strides():
    with pytest.raises(TeacherError, match=r"no feature maps at strides \[4, 8\].*choose"):
        build_teacher("levit_128s", "random")


def test_unknown_backbone_is_named():
    with pytest.raises(
        TeacherError, match="no feature backbone 'resnet19'.*entry point of the group scrd.teachers"
    ):
        build_teacher("resnet19", "random")
