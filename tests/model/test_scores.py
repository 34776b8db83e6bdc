"""Maps and scores against plain loops."""

import copy
import math

import numpy as np
import pytest
import torch

from scrd.config import Config
from scrd.model import build_model
from scrd.model.areas import area_means
from scrd.model.constants import TOP_FRACTION
from scrd.model.scores import (
    POOLINGS,
    agreement,
    anomaly_map,
    infer,
    map_statistics,
    measured,
    scale_excess,
)
from scrd.objectives.distance import distance_map
from scrd.training.normals import learn_normals

SIZE = 64
TOP = TOP_FRACTION
STRIDES = (4, 8, 16)


def bilinear(image, size):
    """Bilinear resize of (h, w) to (size, size): centres at half integers, borders clamped."""
    h, w = image.shape
    out = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            y = min(max((row + 0.5) * h / size - 0.5, 0), h - 1)
            x = min(max((column + 0.5) * w / size - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = y - y0, x - x0
            out[row, column] = (1 - fy) * ((1 - fx) * image[y0, x0] + fx * image[y0, x1]) + fy * (
                (1 - fx) * image[y1, x0] + fx * image[y1, x1]
            )
    return out


def test_the_map_is_the_weighted_sum_of_upsampled_cosine_distances():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 5, 8, 8), (2, 7, 4, 4), (2, 9, 2, 2)]
    clean, student = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(2))
    alpha = torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    expected = np.zeros((2, 16, 16))
    for b in range(2):
        for k, (_, _, h, w) in enumerate(shapes):
            distance = np.zeros((h, w))
            for y in range(h):
                for x in range(w):
                    u, v = (f[k][b, :, y, x].double().numpy() for f in (clean, student))
                    distance[y, x] = 1 - u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
            expected[b] += alpha[b, k].item() * bilinear(distance, 16)
    found = anomaly_map(list(map(distance_map, clean, student)), alpha, 16)
    assert found.dtype == torch.float32
    assert found.shape == (2, 16, 16)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_map_spans_0_to_2_and_half_precision_still_gives_float32():
    u = torch.ones(1, 4, 2, 2)
    alpha = torch.ones(1, 1)
    assert anomaly_map([distance_map(u, u)], alpha, 4).abs().max() < 1e-6
    assert (anomaly_map([distance_map(u, -u)], alpha, 4) - 2).abs().max() < 1e-6
    low = distance_map(u.bfloat16(), u.bfloat16())
    assert anomaly_map([low], alpha.bfloat16(), 4).dtype == torch.float32


def test_features_of_zero_give_no_nan():
    zero, one = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    for u, v in ((zero, one), (one, zero), (zero, zero)):
        assert torch.isfinite(anomaly_map([distance_map(u, v)], torch.ones(1, 1), 4)).all()


def test_statistics_against_a_loop_with_padding():
    rng = np.random.default_rng(1)
    maps = rng.uniform(0, 2, (4, 32, 32)).astype(np.float32)
    content = np.ones((4, 32, 32), dtype=bool)
    content[1, :10], content[2, :, 5:] = False, False
    content[3] = False
    content[3, 4, 4:9] = True  # 5 pixels: 2 % of them is less than one
    maps[~content] = 50.0  # padding must never count
    found = map_statistics(torch.from_numpy(maps), torch.from_numpy(content), TOP)
    for b in range(4):
        inside = np.sort(maps[b][content[b]].astype(np.float64))[::-1]
        count = max(1, math.floor(len(inside) / 50))
        assert found["mean"][b].item() == pytest.approx(inside.mean(), rel=1e-5)
        assert found["top"][b].item() == pytest.approx(inside[:count].mean(), rel=1e-5)
        assert found["max"][b].item() == pytest.approx(inside[0], rel=1e-6)


def test_the_top_fraction_is_counted_without_rounding_errors():
    assert TOP == 0.02
    # ones down to the 2 %, zeros below: the mean is one exactly when no zero is counted
    for side in (64, 80, 100, 128, 224, 256):
        for area in (side, 50 * (side // 2), side * side // 50 * 50, side * side):
            count = max(1, area // 50)
            flat = torch.zeros(side * side)
            flat[:count] = 1.0
            content = torch.zeros(side * side, dtype=torch.bool)
            content[:area] = True
            shape = (1, side, side)
            top = map_statistics(flat.view(shape), content.view(shape), TOP)["top"]
            assert top.item() == 1.0
            flat[count - 1] = 0.0
            top = map_statistics(flat.view(shape), content.view(shape), TOP)["top"]
            assert top.item() == pytest.approx((count - 1) / count, rel=1e-6)


def test_an_image_is_pooled_the_same_alone_and_beside_others():
    maps = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
    content = torch.ones(3, 32, 32, dtype=torch.bool)
    content[0, :24] = False
    together = map_statistics(maps, content, TOP)
    for b in range(3):
        alone = map_statistics(maps[b : b + 1], content[b : b + 1], TOP)
        for name, values in together.items():
            assert alone[name].item() == pytest.approx(values[b].item(), rel=1e-6)


@pytest.fixture(scope="module")
def model():
    """A network that knows normals, with uneven scale weights that differ between images."""
    with torch.random.fork_rng(), pytest.warns(UserWarning, match="RANDOM"):
        torch.manual_seed(0)
        built = build_model("efficientnet_lite0", "random", image_size=SIZE).eval()
        torch.nn.init.normal_(built.scale_head.linear.weight, std=0.003)
    generator = torch.Generator().manual_seed(5)
    built.normals.fit((random_distances(12, generator, 0.2, 0.6) for _ in range(2)), (1, 1, 1))
    return built


def random_distances(count, generator, low=0.0, high=1.0):
    sides = [SIZE // stride for stride in STRIDES]
    return [low + (high - low) * torch.rand(count, n, n, generator=generator) for n in sides]


def test_the_excess_of_a_scale_is_the_mean_over_the_content(model):
    found = random_distances(3, torch.Generator().manual_seed(6))
    content = torch.ones(3, SIZE, SIZE, dtype=torch.bool)
    content[1, :16], content[1, 48:] = False, False
    content[2, :, 5:] = False
    expected = np.zeros((3, 3))
    for b in range(3):
        for k, maps in enumerate(found):
            mean = model.normals.get_buffer(f"mean{k}").double().numpy()
            std = model.normals.get_buffer(f"std{k}").double().numpy()
            beyond = np.maximum(0, (maps[b].double().numpy() - mean) / std)
            upsampled = bilinear(beyond, SIZE)
            pixels = [upsampled[y, x] for y, x in content[b].nonzero().tolist()]
            expected[b, k] = sum(pixels) / len(pixels)
    excess = scale_excess(model, found, content)
    np.testing.assert_allclose(excess.numpy(), expected, rtol=1e-4)
    everywhere = scale_excess(model, found, torch.ones_like(content))
    assert (excess / everywhere - 1).abs().amin(dim=1).tolist()[0] == 0
    assert ((excess - everywhere).abs().amax(dim=1) > 1e-3).tolist() == [False, True, True]


def test_padding_never_counts_in_the_excess(model):
    found = random_distances(2, torch.Generator().manual_seed(7))
    content = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    content[:, 16:48] = True
    loud = [d.clone() for d in found]
    for d, stride in zip(loud, STRIDES, strict=True):
        # out of reach of the interpolation, which takes one position more: none at stride 16
        d[:, : 16 // stride - 1], d[:, 48 // stride + 1 :] = 50.0, 50.0
    assert torch.equal(scale_excess(model, found, content), scale_excess(model, loud, content))
    everywhere = torch.ones_like(content)
    assert scale_excess(model, loud, everywhere)[:, :2].min() > 5


def test_normals_have_no_excess_on_average_but_at_each_position(model):
    at_the_mean = [model.normals.get_buffer(f"mean{k}")[None] for k in range(3)]
    content = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    assert scale_excess(model, at_the_mean, content).abs().max() == 0
    below = [d - 0.1 for d in at_the_mean]
    assert scale_excess(model, below, content).abs().max() == 0
    above = [d + 0.1 for d in at_the_mean]
    assert scale_excess(model, above, content).min() > 0


def images_and_content(count=3):
    images = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    content = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    content[0, :16] = False
    return images, content


def test_inference_puts_the_parts_together(model):
    images, content = images_and_content()
    clean = model.encode(images)
    student, alpha, lesions = model.reconstruct(clean)
    assert lesions is None
    expected = [distance_map(u, v).detach() for u, v in zip(clean, student, strict=True)]
    found, weights = measured(model, images)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
        assert a.shape == b.shape and not a.requires_grad
    torch.testing.assert_close(weights, alpha.detach())
    assert alpha.std(dim=0).min() > 1e-3
    inference = infer(model, images, content)
    torch.testing.assert_close(inference.maps, anomaly_map(expected, alpha.detach(), SIZE))
    torch.testing.assert_close(inference.scale_weights, alpha.detach())
    parts = [*inference[:2], inference.excess, *inference.statistics.values()]
    assert all(torch.isfinite(part).all() and not part.requires_grad for part in parts)


def test_statistics_of_an_inference(model):
    images, content = images_and_content()
    inference = infer(model, images, content)
    found = inference.statistics
    assert set(POOLINGS) <= set(found)
    torch.testing.assert_close(found["areas"], model.areas(inference.maps, content))
    plain = scale_excess(model, measured(model, images).maps, content)
    torch.testing.assert_close(found["excess_plain"], plain.mean(dim=1))
    for b in range(3):
        alpha, excess = inference.scale_weights[b].tolist(), inference.excess[b].tolist()
        weighed = sum(a * e for a, e in zip(alpha, excess, strict=True))
        assert found["excess"][b].item() == pytest.approx(weighed, rel=1e-5)
        assert found["excess_uniform"][b].item() == pytest.approx(sum(excess) / 3, rel=1e-5)
    for name, values in map_statistics(inference.maps, content, TOP).items():
        torch.testing.assert_close(found[name], values)


@pytest.mark.parametrize(("objective", "alike"), [("released", True), ("paper", False)])
def test_weights_of_features_have_no_part_in_maps(objective, alike):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build_model(
            "efficientnet_lite0", "random", image_size=SIZE, objective=objective
        ).eval()
        torch.nn.init.normal_(built.scale_head.linear.weight)
        images = torch.rand(2, 3, SIZE, SIZE)
    content = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    with torch.inference_mode():
        found, alpha = built(images)
        maps = infer(built, images, content).maps
    assert (alpha - 1 / 3).abs().max() > 0.1
    equal = anomaly_map(found, torch.full((2, 3), 1 / 3), SIZE)
    assert torch.allclose(maps, equal, atol=1e-6) is alike


def test_weights_that_are_constant_weigh_scores_but_not_maps(model):
    images, content = images_and_content()
    found, _ = measured(model, images)
    constant = copy.deepcopy(model)
    alpha = torch.tensor([0.7, 0.2, 0.1])
    constant.scale_head.fix(alpha)
    inference = infer(constant, images, content)
    equal = torch.full((3, 3), 1 / 3)
    torch.testing.assert_close(inference.maps, anomaly_map(found, equal, SIZE))
    weighed = (inference.excess * alpha).sum(dim=1)
    torch.testing.assert_close(inference.statistics["excess"], weighed)


def test_inference_takes_grey_and_an_image_does_not_see_the_others(model):
    images, content = images_and_content()
    grey = images[:, :1]
    torch.testing.assert_close(
        infer(model, grey, content), infer(model, grey.expand(-1, 3, -1, -1), content)
    )
    together = infer(model, images, content)
    for b in range(3):
        alone = infer(model, images[b : b + 1], content[b : b + 1])
        for part, all_parts in zip(alone[:2], together[:2], strict=True):
            torch.testing.assert_close(part[0], all_parts[b], rtol=1e-4, atol=1e-5)
        for name, values in together.statistics.items():
            assert alone.statistics[name].item() == pytest.approx(values[b].item(), rel=1e-4)


@pytest.fixture(scope="module")
def combined():
    """A network with memory and lesion head that knows normals."""
    with torch.random.fork_rng(), pytest.warns(UserWarning, match="RANDOM"):
        torch.manual_seed(0)
        built = build_model("resnet18", "random", image_size=SIZE, objective="scrd").eval()
    learn_normals(built, *images_and_content(6), Config(image_size=SIZE))
    return built


def test_a_combined_map_is_the_soft_minimum_in_units_of_normals(combined):
    images, content = images_and_content()
    maps, weights = measured(combined, images)
    memory, head = maps
    terms = combined.constants.terms(combined.objective)
    assert sum(t.weight for t in terms) == pytest.approx(1)
    assert weights[0].tolist() == pytest.approx([t.weight for t in terms])
    sharpness, total = combined.constants.sharpness, 0
    for k, (m, term) in enumerate(zip((memory, head), terms, strict=True)):
        own = m - term.level * m.mean(dim=(1, 2), keepdim=True)
        mean, std = (combined.normals.get_buffer(f"{name}{k}") for name in ("mean", "std"))
        total = total + term.weight * (-sharpness * (own - mean) / std).exp()
    expected = -total.log() / sharpness
    inference = infer(combined, images, content)
    for b in range(3):
        upsampled = bilinear(expected[b].double().numpy(), SIZE)
        np.testing.assert_allclose(inference.maps[b].numpy(), upsampled, atol=1e-3)
    assert inference.excess is None
    assert set(inference.statistics) == {"areas", "mean", "top", "max"}


def test_the_score_is_that_of_the_areas_of_the_map(combined):
    images, content = images_and_content()
    inference = infer(combined, images, content)
    found = combined.areas(inference.maps, content)
    torch.testing.assert_close(inference.statistics["areas"], found)
    images, content = images_and_content(6)
    normal = infer(combined, images, content)
    means = area_means(normal.maps, content)
    torch.testing.assert_close(means.mean(dim=0), combined.areas.mean, atol=1e-4, rtol=0)


def test_agreement_lies_between_the_least_and_the_mean():
    maps = [torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    weights = torch.tensor([[0.3, 0.7]]).expand(2, -1)
    mean = 0.3 * maps[0] + 0.7 * maps[1]
    least = torch.minimum(*maps)
    torch.testing.assert_close(agreement(maps, weights, 0), mean)
    torch.testing.assert_close(agreement(maps, weights, 1e-3), mean, atol=1e-2, rtol=0)
    found = [agreement(maps, weights, s) for s in (0.5, 2, 8)]
    for softer, sharper in zip(found, found[1:], strict=False):
        assert (sharper <= softer).all() and (sharper >= least).all()
    torch.testing.assert_close(agreement(maps, weights, 1e3), least, atol=5e-3, rtol=0)
    same = [maps[0], maps[0]]
    torch.testing.assert_close(agreement(same, weights, 2), maps[0])
    torch.testing.assert_close(agreement(maps[:1], torch.ones(2, 1), 2), maps[0])
