import torch
import torch.nn.functional as F

from scrd.model import build_model
from scrd.model.lesion_head import LesionHead

CHANNELS = (3, 4, 5)


def features(count=2, side=8, seed=0):
    """Six maps: of an image whose stride 8 has ``side`` positions, and of its half."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, c, s, s, generator=generator)
        for size in (side, side // 2)
        for c, s in zip(CHANNELS, (2 * size, size, size // 2), strict=True)
    ]


def test_a_logit_a_position_from_both_sizes_of_the_image():
    head = LesionHead(CHANNELS).eval()
    found = features()
    logits = head(found)
    assert logits.shape == (2, 8, 8) and logits.std() > 0
    for k, u in enumerate(found):
        other = [v + 1 if v is u else v for v in found]
        assert not torch.allclose(head(other), logits), k


def test_a_position_sees_what_lies_there():
    head = LesionHead(CHANNELS).eval()
    found = features()
    joined = [F.avg_pool2d(found[0], 2), found[1]]
    joined += [F.interpolate(u, (8, 8), mode="bilinear") for u in found[2:]]
    one = torch.cat(joined, dim=1)[1:, :, 3:4, 5:6]
    torch.testing.assert_close(head.layers(one)[0, 0, 0, 0], head(found)[1, 3, 5])


def test_the_network_gives_it_the_image_at_half_size():
    model = build_model("efficientnet_lite0", image_size=96, objective="lesions").eval()
    image = torch.rand(1, 1, 96, 96)
    encoded = model.encode(image)
    assert [u.shape[-1] for u in encoded] == [24, 12, 6, 12, 6, 3]
    halved = model.teacher(image.view(1, 1, 48, 2, 48, 2).mean(dim=(3, 5)))
    for a, b in zip(encoded[3:], halved, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    assert model(image).maps[0].shape == (1, 12, 12)
    assert len(build_model("efficientnet_lite0", objective="memory").encode(image)) == 3
