"""Plain vision transformers: one stride becomes three."""

import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from scrd.model import build_model
from scrd.model.teacher import build_teacher
from scrd.model.vit import ResampledViT, quarters
from scrd.model.weights import TeacherError


def random_teacher(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return build_teacher(name, "random")


class Patches(nn.Module):
    """Average colour of each patch, three times; keeps the size of what it is given."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, image):
        self.seen = tuple(image.shape[-2:])
        return [F.avg_pool2d(image, self.side) + k for k in range(3)]


@pytest.mark.parametrize(
    ("patch", "seen"),
    [(8, (64, 96)), (14, (56, 84)), (16, (64, 96)), (32, (64, 96)), (6, (48, 72))],
)
def test_whole_patches_cover_the_image_at_about_its_size(patch, seen):
    backbone = ResampledViT(Patches(patch), patch)
    maps = backbone(torch.rand(2, 3, 64, 96))
    assert backbone.blocks.seen == seen
    assert [tuple(u.shape) for u in maps] == [(2, 3, 16, 24), (2, 3, 8, 12), (2, 3, 4, 6)]


def test_maps_stay_where_they_are():
    # a ramp is its own interpolation, but for the borders
    ramp = torch.linspace(0, 1, 128).expand(1, 3, 128, 128)
    for k, u in enumerate(ResampledViT(Patches(14), 14)(ramp)):
        expected = F.avg_pool2d(ramp, 2 ** (k + 2)) + k
        inner = slice(u.shape[-1] // 8, -(u.shape[-1] // 8))
        torch.testing.assert_close(u[..., inner], expected[..., inner], atol=0.01, rtol=0)


def test_three_maps_are_the_quarters_of_the_depth():
    assert quarters(12) == (2, 5, 8)
    teacher = random_teacher("vit_tiny_patch16_224")
    full = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    state = teacher.backbone.blocks.model.state_dict()
    full.load_state_dict(state, strict=False)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        x = full.patch_embed((image - 0.5) / 0.5)
        x = full.norm_pre(full._pos_embed(x))
        found = []
        for i, block in enumerate(full.blocks[:9]):
            x = block(x)
            if i in (2, 5, 8):
                found.append(x[:, 1:].mT.reshape(1, 192, 4, 4))
    maps = teacher(image)
    torch.testing.assert_close(maps[2], found[2])
    for u, v in zip(maps, found, strict=True):
        v = F.interpolate(v, u.shape[-2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(u, v)
    assert not any(name.startswith("blocks.9") for name in state)  # what no map needs is gone


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("vit_small_patch14_dinov2", 384),
        ("vit_small_patch16_dinov3", 384),
        ("deit_tiny_patch16_224", 192),
    ],
)
def test_student_has_the_shapes_of_the_teacher(name, channels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = build_model(name, "random", False, 64).eval()
    assert model.teacher.channels == (channels,) * 3
    clean = model.encode(torch.rand(1, 1, 64, 64))
    student = model.reconstruct(clean).student
    assert [u.shape for u in clean] == [v.shape for v in student]
    assert [u.shape[-1] for u in clean] == [16, 8, 4]


def test_student_has_bottleneck_blocks():
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        student = build_model("vit_small_patch14_dinov2", "random", False).student
    assert sum(p.numel() for p in student.parameters()) == 3_207_168


def test_weights_of_the_native_size_serve_any(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    path = tmp_path / "w.pth"
    torch.save(state, path)
    teacher = build_teacher("vit_tiny_patch16_224", str(path))
    assert teacher.source == "w.pth"
    embedded = teacher.backbone.blocks.model.pos_embed
    assert torch.equal(embedded, state["pos_embed"])
    assert teacher(torch.rand(1, 3, 96, 64))[0].shape == (1, 192, 24, 16)


@pytest.mark.filterwarnings("ignore:the teacher")
def test_transformer_of_one_size_is_refused():
    with pytest.raises(TeacherError, match="mixer_s16_224 cannot be made for images of any size"):
        build_teacher("mixer_s16_224", "random")
