import math

import pytest
import torch
from torch.testing import assert_close

from scrd.baselines.linear_attention import LinearLayer, Perceptron, linear_attention


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_attention_whose_weights_are_products_of_positive_features():
    q, k, v = drawn(2, 5, 3), drawn(2, 7, 3, seed=1), drawn(2, 7, 4, seed=2)

    def positive(x):
        return [c + 1 if c > 0 else math.exp(c) for c in x.tolist()]

    found = linear_attention(q, k, v)
    assert found.shape == (2, 5, 4)
    for b in range(2):
        for i in range(5):
            weights = [
                sum(a * c for a, c in zip(positive(q[b, i]), positive(k[b, j]), strict=True))
                for j in range(7)
            ]
            for c in range(4):
                mixed = sum(w * float(v[b, j, c]) for j, w in enumerate(weights))
                assert float(found[b, i, c]) == pytest.approx(mixed / sum(weights), rel=1e-5)


def test_it_is_less_focused_than_softmax():
    # a key ten times as alike to the query as any other gets no more than its share
    q, k = torch.tensor([[10.0, 0.0]]), torch.tensor([[10.0, 0.0], *[[1.0, 0.0]] * 9])
    v = torch.tensor([[1.0], *[[0.0]] * 9])
    assert float(torch.softmax(q @ k.T, dim=1) @ v) > 0.999
    assert float(linear_attention(q, k, v)) < 0.4


def test_heads_are_apart_and_a_layer_begins_from_its_input():
    layer = LinearLayer(128)
    tokens = drawn(1, 6, 128)
    with torch.no_grad():
        layer.out.weight.copy_(torch.eye(128))
        layer.out.bias.zero_()
        layer.perceptron[3].weight.zero_()
        layer.perceptron[3].bias.zero_()
        attended = layer(tokens) - tokens
        parts = layer.qkv(layer.norm_attention(tokens))
        for head in range(2):
            q, k, v = (parts[..., i * 128 + head * 64 :][..., :64] for i in range(3))
            expected = linear_attention(q, k, v)
            assert_close(attended[..., head * 64 :][..., :64], expected, atol=1e-5, rtol=1e-4)


def test_a_width_that_is_no_whole_number_of_heads_is_refused():
    with pytest.raises(ValueError, match="100 channels are no whole number of heads of 64"):
        LinearLayer(100)


def test_the_bottleneck_is_noisy_in_training_only():
    noisy, x = Perceptron(64, 0.2), torch.ones(200, 64)
    dropped = (noisy(x) == 0).float().mean()
    assert 0.17 < float(dropped) < 0.23
    noisy.eval()
    assert (noisy(x) != 0).all()
    assert torch.equal(noisy(x), noisy(x))
