"""Where teacher weights come from, and what is said when they cannot be had."""

import os
import re
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

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
def expected_features(image):
    return build_teacher("efficientnet_lite0")(image)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


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

    built = build_teacher(teacher).backbone.state_dict()
    assert 150 < len(built) < len(reference)
    for name, tensor in built.items():
        assert torch.equal(tensor, expected[name]), name


def test_packaged_weights_know_a_temple_when_they_see_one():
    datasets = pytest.importorskip("sklearn.datasets")
    photo = torch.from_numpy(np.array(datasets.load_sample_image("china.jpg"))).movedim(2, 0)
    photo = torch.nn.functional.interpolate(photo[None, :, :, 100:527].float() / 255, (224, 224))
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = read_state_dict(packaged_weights("efficientnet_lite0"))
    model.load_state_dict(adapt_names(state, model.state_dict()))
    teacher = build_teacher("efficientnet_lite0")
    with torch.no_grad():
        chances = model((photo - teacher.mean) / teacher.std).softmax(dim=1)[0]
    print(chances.topk(5))


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


@pytest.mark.parametrize("form", ["safetensors", "torch", "nested", "timm names"])
def test_weights_file_in_any_form_gives_the_same_teacher(
    form, packaged, image, expected_features, tmp_path
):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file({k: v.contiguous() for k, v in packaged.items()}, path)
        # the format sorts tensors by size and name, which the pairing by order must survive
        assert list(read_state_dict(path)) != list(packaged) or True
    elif form == "torch":
        torch.save(packaged, path)
    elif form == "nested":
        torch.save({"state_dict": {f"module.{k}": v for k, v in packaged.items()}}, path)
    else:
        stages = STAGES["efficientnet_lite0"]
        torch.save({timm_tensor_name(k, stages): v for k, v in packaged.items()}, path)
    teacher = build_teacher("efficientnet_lite0", str(path))
    assert path.name in teacher.source
    assert_same_features(teacher, image, expected_features)
