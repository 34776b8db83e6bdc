"""What the two promises of a false-alarm rate cost, on simulated scores: a table for the docs.

A score is sqrt(c) · that of its patient + sqrt(1 - c) · its own, both standard normal: c is the
correlation between images of one patient. Abnormal images score two standard deviations higher.
Once a threshold is drawn, its rates on images of new patients are known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from scrd.scoring.calibration import threshold_at
from scrd.scoring.promise import Promise, looks

RATE, SHIFT, MEAN_SIZE, DRAWS = 0.05, 2.0, 14, 600
PATIENTS, CORRELATIONS = (16, 19, 32, 39, 79), (0.0, 0.5, 0.9)
HEADER = (
    "| patients | c | false alarms, `group` | found, `group` | false alarms, `image` "
    "| found, `image` |\n|---:|---:|---:|---:|---:|---:|"
)


def draw(
    patients: int, correlation: float, rng: np.random.Generator, *, uneven: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores (M,) of normals, and the patient of each; ``uneven`` sizes are 2 to 43 images."""
    sizes = np.full(patients, MEAN_SIZE)
    if uneven:
        sizes = np.clip(rng.geometric(1 / (MEAN_SIZE - 1), patients) + 1, 2, 43)
    groups = np.repeat(np.arange(patients), sizes)
    shared, own = rng.normal(size=patients)[groups], rng.normal(size=len(groups))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own, groups


def rates(
    patients: int, correlation: float, promise: Promise, *, uneven: bool = False, draws: int = DRAWS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False-alarm rate and sensitivity on images of new patients, of each calibration (draws,)."""
    rng = np.random.default_rng(0)
    thresholds = np.empty(draws)
    for i in range(draws):
        scores, groups = draw(patients, correlation, rng, uneven=uneven)
        thresholds[i] = threshold_at(scores, looks(groups.tolist(), promise), RATE)
    return norm.sf(thresholds), norm.sf(thresholds - SHIFT)


def table(patients: Sequence[int] = PATIENTS) -> str:
    """The table in Markdown: means, and the 2.5 % and 97.5 % quantiles over calibrations."""
    lines = [HEADER]
    for count in patients:
        for correlation in CORRELATIONS:
            cells = []
            for promise in ("group", "image"):
                alarms, found = rates(count, correlation, promise)
                low, high = np.quantile(alarms, (0.025, 0.975))
                cells += [
                    f"{alarms.mean():.1%} ({low:.1%} to {high:.1%})".replace("%", " %"),
                    f"{found.mean():.0%}".replace("%", " %"),
                ]
            lines.append(f"| {count} | {correlation:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
