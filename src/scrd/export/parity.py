"""Whether an export agrees with its source on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from scrd.data.cache import iter_batches
from scrd.data.preprocess import content_masks
from scrd.data.record import Record
from scrd.export.errors import ExportError
from scrd.metrics.ranks import auroc
from scrd.scoring.scorer import Scorer
from scrd.system.progress import counting

LEAST_IMAGES = 32
MAP_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-3
STEP_TOLERANCE = 1
RANK_TOLERANCE = 0.999
AUROC_TOLERANCE = 0.1


@dataclass(frozen=True)
class Parity:
    """How far an export is from its source.

    Attributes:
        images: N, on how many images.
        map_difference: largest difference of a pixel, in shares of the range of all maps.
        score_difference: largest difference of a score, over all poolings, in shares of the range
            of the N scores under that pooling.
        p_value_steps: largest difference of a p-value, in steps: distinct calibration scores that
            lie between the two scores; None where no normals calibrated the model.
        rank_correlation: Spearman's, of the scores.
        auroc: that of the source, in percent; None where the images are of one class.
        auroc_difference: that of the export minus that of the source, in percentage points.
        flags_changed: images flagged by the one and not by the other.
    """

    images: int
    map_difference: float
    score_difference: float
    p_value_steps: int | None
    rank_correlation: float
    auroc: float | None
    auroc_difference: float | None
    flags_changed: int

    def failures(self) -> list[str]:
        """The figures that are out of bounds, a phrase each; none where the export agrees."""
        checks = [
            (
                self.map_difference <= MAP_TOLERANCE,
                f"maps differ by up to {self.map_difference:.2g} of their range "
                f"(allowed {MAP_TOLERANCE:g})",
            ),
            (
                self.score_difference <= SCORE_TOLERANCE,
                f"scores differ by up to {self.score_difference:.2g} of their range "
                f"(allowed {SCORE_TOLERANCE:g})",
            ),
            (
                (self.p_value_steps or 0) <= STEP_TOLERANCE,
                f"p-values differ by up to {self.p_value_steps} calibration steps "
                f"(allowed {STEP_TOLERANCE})",
            ),
            (
                self.rank_correlation > RANK_TOLERANCE,
                f"the rank correlation of the scores is {self.rank_correlation:.4f} "
                f"(at least {RANK_TOLERANCE:g})",
            ),
        ]
        if self.auroc_difference is not None:
            checks.append(
                (
                    abs(self.auroc_difference) <= AUROC_TOLERANCE,
                    f"the AUROC differs by {self.auroc_difference:+.2f} points "
                    f"(allowed {AUROC_TOLERANCE:g})",
                )
            )
        return [reason for holds, reason in checks if not holds]


def measure(
    source: Scorer, export: Scorer, records: Sequence[Record], *, progress: bool = False
) -> Parity:
    """Run both on the same images.

    Args:
        source: the model.
        export: what was made of it.
        records: images and their labels; those that cannot be read are left out.
        progress: show a progress bar on standard error.

    Raises:
        ExportError: fewer than 32 of them can be read.
    """
    read: list[int] = []
    ours: dict[str, list[NDArray[np.float64]]] = {}
    theirs: dict[str, list[NDArray[np.float64]]] = {}
    apart, low, high = 0.0, np.inf, -np.inf
    with counting("comparing", len(records), progress) as advance:
        for batch in iter_batches(
            [record.source for record in records], source.preprocessing, batch_size=16
        ):
            if not batch.index:
                continue
            content = content_masks(batch.source_sizes, source.preprocessing)
            a, b = source.infer(batch.images, content), export.infer(batch.images, content)
            # a NaN anywhere stays
            apart = np.maximum(apart, np.abs(a.maps - b.maps).max())
            low, high = min(low, float(a.maps.min())), max(high, float(a.maps.max()))
            for name in a.statistics:
                ours.setdefault(name, []).append(a.statistics[name])
                theirs.setdefault(name, []).append(b.statistics[name])
            read.extend(batch.index)
            advance(len(read))
    if len(read) < LEAST_IMAGES:
        raise ExportError(
            f"only {len(read)} images could be read; an export is compared with its model on at "
            f"least {LEAST_IMAGES}"
        )
    labels = [records[i].label for i in read]
    pooled = {n: (np.concatenate(ours[n]), np.concatenate(theirs[n])) for n in ours}
    calibration = source.calibration
    x, y = pooled[calibration.pooling]
    known = np.unique(calibration.scores)
    steps = np.searchsorted(known, x) - np.searchsorted(known, y)
    both = 0 < sum(labels) < len(labels) and not np.isnan(y).any()
    area = 100 * auroc(x, labels) if both else None
    return Parity(
        images=len(read),
        map_difference=float(apart / max(high - low, np.finfo(np.float32).tiny)),
        score_difference=float(np.max([_difference(u, v) for u, v in pooled.values()])),
        p_value_steps=int(np.abs(steps).max()) if calibration.calibrated else None,
        rank_correlation=float(spearmanr(x, y).statistic),
        auroc=area,
        auroc_difference=None if area is None else 100 * auroc(y, labels) - area,
        flags_changed=int(((x >= calibration.threshold) != (y >= calibration.threshold)).sum()),
    )


def _difference(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Largest difference in shares of the range of ``x``."""
    return float(np.abs(x - y).max() / max(np.ptp(x), np.finfo(np.float32).tiny))
