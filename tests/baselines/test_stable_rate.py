import math

import pytest
import torch

from scrd.baselines.stable_rate import set_stable_rates


def optimizer_of(*parameters):
    return torch.optim.AdamW([{"params": [p]} for p in parameters], lr=1.0, betas=(0.9, 0.999))


def step(optimizer, parameter, gradient, rate=0.01):
    parameter.grad = torch.tensor(gradient)
    set_stable_rates(optimizer, rate)
    optimizer.step()
    return optimizer.param_groups[0]["lr"]


def test_the_rate_is_divided_by_the_rms_of_gradients_over_their_second_moment():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = optimizer_of(parameter)
    gradients = [[0.1, 0.2], [0.1, -0.3], [2.0, 0.2], [0.01, 0.0]]
    moment = [0.0, 0.0]
    for t, gradient in enumerate(gradients, start=1):
        found = step(optimizer, parameter, gradient)
        moment = [0.999 * m + 0.001 * g**2 for m, g in zip(moment, gradient, strict=True)]
        unbiased = [m / (1 - 0.999**t) for m in moment]
        mean = sum(g**2 / v for g, v in zip(gradient, unbiased, strict=True)) / 2
        assert found == pytest.approx(0.01 / max(1, math.sqrt(mean)), rel=1e-4), t
        state = optimizer.state[parameter]["exp_avg_sq"].tolist()
        assert state == pytest.approx(moment, rel=1e-4)


def test_only_a_tensor_whose_gradient_jumps_is_slowed():
    calm, jumping, unused = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer = optimizer_of(calm, jumping, unused)
    for size in (1.0, 1.0, 1.0, 50.0):
        calm.grad = torch.ones(3)
        step(optimizer, jumping, [size] * 3)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == pytest.approx(0.01, rel=1e-3)
    assert rates[1] < 0.01 / 1.9
    assert rates[2] == 0.01
    assert torch.equal(unused, torch.ones(3))
