"""Online conformal p-values of a stream, which are independent if it is exchangeable."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

import numpy as np
from numpy.typing import ArrayLike, NDArray


def online_p_values(
    reference: ArrayLike, stream: ArrayLike, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Smoothed conformal p-values of a stream, each among all that came before.

    p_t = (#{i < t : s_i > s_t} + θ_t · #{i ≤ t : s_i = s_t}) / t, θ_t uniform in (0, 1), for the
    sequence s of the reference followed by the stream (Vovk 2021, "Testing randomness online").

    If that sequence is exchangeable, these are independent and uniform in [0, 1], whatever the
    distribution of s and however small the reference. P-values among the reference alone are not:
    they share its luck, and a long stream shows it. In which order the reference comes does not
    matter, since nothing is said of its own members.

    Args:
        reference: (M,), float, M ≥ 0.
        stream: (N,), float, in the order of arrival.
        generator: from which θ is drawn, one number a member of the stream, in its order: what
            follows later changes nothing of what came before.

    Returns:
        (N,), float64, in [0, 1]; small where a value is high among those before it.

    Raises:
        ValueError: a value is NaN.
    """
    seen = np.sort(np.asarray(reference, dtype=np.float64)).tolist()
    values = np.asarray(stream, dtype=np.float64)
    if np.isnan(values).any() or np.isnan(seen).any():
        raise ValueError("a value of the stream or of its reference is NaN")
    found = np.empty(len(values))
    for i, (value, theta) in enumerate(
        zip(values.tolist(), generator.random(len(values)).tolist(), strict=True)
    ):
        above = len(seen) - bisect_right(seen, value)
        equal = 1 + len(seen) - above - bisect_left(seen, value)
        found[i] = (above + theta * equal) / (len(seen) + 1)
        insort(seen, value)
    return found
