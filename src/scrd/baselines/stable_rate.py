"""StableAdamW: AdamW whose rate falls where the second moment has not caught up."""

from __future__ import annotations

import torch


def set_stable_rates(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Set the learning rates of the coming step, one for each tensor.

    The rate is divided by max(1, RMS), RMS² = mean(g² / max(v, ε²)), with the gradient g and its
    second moment v, free of bias, as the coming step will have it: Wortsman et al., *Stable and
    low-precision training for large-scale vision-language models*, NeurIPS 2023, Algorithm 2,
    after Adafactor's clipping of updates. Where a gradient is suddenly large, v lags behind it,
    and AdamW's update would be many times its rate.

    Args:
        optimizer: with a single parameter in each group.
        rate: what a tensor gets whose RMS is at most 1.
    """
    for group in optimizer.param_groups:
        (parameter,) = group["params"]
        group["lr"] = rate
        if parameter.grad is None:
            continue
        state, decay = optimizer.state.get(parameter, {}), group["betas"][1]
        square = parameter.grad.square()
        moment, steps = (1 - decay) * square, 1.0
        if state:
            moment = moment + decay * state["exp_avg_sq"]
            steps += float(state["step"])
        moment = moment / (1 - decay**steps)
        rms = (square / moment.clamp_min(group["eps"] ** 2)).mean().sqrt()
        group["lr"] = rate / max(1.0, float(rms))
