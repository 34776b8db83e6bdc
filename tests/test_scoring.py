"""Maps and scores against plain loops."""

import math

import numpy as np
import pytest
import torch

from scrd.scoring import (
    POOLINGS,
    TOP_FRACTION,
    anomaly_map,
    infer,
    log_statistics,
    map_statistics,
    pool,
)


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
    found = anomaly_map(clean, student, alpha, 16)
    assert found.dtype == torch.float32
    assert found.shape == (2, 16, 16)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_map_spans_0_to_2_and_half_precision_features_still_give_float32():
    u = [torch.ones(1, 4, 2, 2)]
    alpha = torch.ones(1, 1)
    assert anomaly_map(u, u, alpha, 4).abs().max() < 1e-6
    assert (anomaly_map(u, [-u[0]], alpha, 4) - 2).abs().max() < 1e-6
    low = [f.bfloat16() for f in u]
    assert anomaly_map(low, low, alpha.bfloat16(), 4).dtype == torch.float32


def test_features_of_zero_give_no_nan():
    zero, one = [torch.zeros(1, 4, 2, 2)], [torch.ones(1, 4, 2, 2)]
    for u, v in ((zero, one), (one, zero), (zero, zero)):
        assert torch.isfinite(anomaly_map(u, v, torch.ones(1, 1), 4)).all()


def test_statistics_against_a_loop_with_padding():
    rng = np.random.default_rng(1)
    maps = rng.uniform(0, 2, (4, 32, 32)).astype(np.float32)
    content = np.ones((4, 32, 32), dtype=bool)
    content[1, :10], content[2, :, 5:] = False, False
    content[3] = False
    content[3, 4, 4:9] = True  # 5 pixels: 2 % of them is less than one
    maps[~content] = 50.0  # padding must never count
    found = map_statistics(torch.from_numpy(maps), torch.from_numpy(content))
    for b in range(4):
        inside = np.sort(maps[b][content[b]].astype(np.float64))[::-1]
        count = max(1, math.floor(len(inside) / 50))
        assert found["mean"][b].item() == pytest.approx(inside.mean(), rel=1e-5)
        assert found["top"][b].item() == pytest.approx(inside[:count].mean(), rel=1e-5)
        assert found["max"][b].item() == pytest.approx(inside[0], rel=1e-6)


def test_the_top_fraction_is_counted_without_rounding_errors():
    assert TOP_FRACTION == 0.02
    # ones down to the 2 %, zeros below: the mean is one exactly when no zero is counted
    for side in (64, 80, 100, 128, 224, 256):
        for area in (side, 50 * (side // 2), side * side // 50 * 50, side * side):
            count = max(1, area // 50)
            flat = torch.zeros(side * side)
            flat[:count] = 1.0
            content = torch.zeros(side * side, dtype=torch.bool)
            content[:area] = True
            shape = (1, side, side)
            top = map_statistics(flat.view(shape), content.view(shape))["top"]
            assert top.item() == 1.0
            flat[count - 1] = 0.0
            top = map_statistics(flat.view(shape), content.view(shape))["top"]
            assert top.item() == pytest.approx((count - 1) / count, rel=1e-6)


def test_an_image_is_pooled_the_same_alone_and_beside_others():
    maps = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
    content = torch.ones(3, 32, 32, dtype=torch.bool)
    content[0, :24] = False
    together = map_statistics(maps, content)
    for b in range(3):
        alone = map_statistics(maps[b : b + 1], content[b : b + 1])
        for name, values in together.items():
            assert alone[name].item() == pytest.approx(values[b].item(), rel=1e-6)


def test_pooling_takes_the_named_statistic():
    statistics = {"mean": torch.tensor([0.1]), "top": torch.tensor([0.4]), "max": torch.tensor([1])}
    for name, values in statistics.items():
        assert pool(statistics, name) is values


def test_fused_is_the_larger_standardised_logarithm():
    rng = np.random.default_rng(3)
    normal = {name: rng.lognormal(-2, 0.3, 40) for name in ("mean", "top", "max")}
    normals = log_statistics({name: torch.from_numpy(v) for name, v in normal.items()})
    assert set(normals) == {"mean", "top"}
    for name, (mean, std) in normals.items():
        assert mean == pytest.approx(np.log(normal[name]).mean())
        assert std == pytest.approx(np.log(normal[name]).std(ddof=0))
    new = {name: rng.lognormal(-2, 1, 25) for name in ("mean", "top", "max")}
    found = pool({name: torch.from_numpy(v) for name, v in new.items()}, "fused", normals).numpy()
    for i in range(25):
        z = [(math.log(new[n][i]) - normals[n][0]) / normals[n][1] for n in ("mean", "top")]
        assert found[i] == pytest.approx(max(z))
    # each of the two decides somewhere, or the test would not see which one is taken
    which = {int(np.argmax([np.log(new[n][i]) for n in ("mean", "top")])) for i in range(25)}
    assert which == {0, 1}


def test_fused_stays_finite_on_few_constant_and_zero_normals():
    for values in ([0.5, 0.5, 0.5], [0.0, 0.0], [0.5]):
        x = torch.tensor(values)
        normals = log_statistics({"mean": x, "top": x, "max": x})
        assert all(math.isfinite(v) for pair in normals.values() for v in pair)
        assert all(std > 0 for _, std in normals.values())
        assert torch.isfinite(pool({"mean": x, "top": x, "max": x}, "fused", normals)).all()


def test_pooling_refuses_what_it_cannot_do():
    statistics = {name: torch.ones(1) for name in ("mean", "top", "max")}
    with pytest.raises(ValueError, match="'median'.*" + ", ".join(POOLINGS)):
        pool(statistics, "median")
    with pytest.raises(ValueError, match="fused"):
        pool(statistics, "fused")


def test_inference_takes_grey_and_needs_no_gradient():
    from scrd.model import build_model

    with pytest.warns(UserWarning, match="RANDOM"):
        model = build_model("efficientnet_lite0", "random").eval()
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(4))
    maps, alpha = infer(model, grey)
    assert maps.shape == (2, 64, 64)
    assert not maps.requires_grad
    assert torch.isfinite(maps).all()
    torch.testing.assert_close(alpha.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(maps, infer(model, grey.expand(-1, 3, -1, -1))[0])
