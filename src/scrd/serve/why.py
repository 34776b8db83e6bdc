"""Why a result is what it is, in words: how far beyond normals, where, how large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.scoring.calibration import Calibration

_THIRDS = ("upper", "middle", "lower"), ("left", "middle", "right")


def unit_of(statistics: Mapping[str, float]) -> str:
    """What the map of an image is measured in, see :attr:`scrd.scoring.scorer.Scored.input_map`.

    Args:
        statistics: of the image; only an objective with a student has ``excess``.
    """
    if "excess" in statistics:
        return "distance of teacher and student"
    return "standard deviations of normals"


def explain(
    image: Mapping[str, Any], values: NDArray[np.float32], calibration: Calibration
) -> list[str]:
    """Sentences on one image.

    Args:
        image: its record, see :mod:`scrd.serve.records`.
        values: (h, w), its map in the geometry of the source, of any resolution.
        calibration: of the model.
    """
    score, normals = image["score"], np.asarray(calibration.scores)
    above = int((normals >= score).sum())
    said = [
        f"Of {len(normals)} normal images that the model was calibrated on, "
        f"{'none scores' if above == 0 else f'{above} score'} as high as this one "
        f"(p = {image['p_value']:.2g})."
    ]
    middle = float(np.median(normals))
    spread = float(np.percentile(normals, 84) - middle)
    if spread > 0:
        said.append(
            f"Its score, {score:.3g}, lies {abs(score - middle) / spread:.1f} times the spread of "
            f"normals {'above' if score >= middle else 'below'} their middle, {middle:.3g}."
        )
    if calibration.silence:
        said.append(f"It is not flagged whatever it shows: {calibration.silence}.")
    else:
        word = "at or above" if image["flag"] else "below"
        rate = _percent(calibration.false_alarm_rate)
        said.append(
            f"It is {'' if image['flag'] else 'not '}flagged: the score is {word} the threshold, "
            f"{calibration.threshold:.3g}, which {rate} of normals pass by chance."
        )
    row, column = np.unravel_index(int(np.nanargmax(values)), values.shape)
    vertical = _THIRDS[0][min(2, 3 * int(row) // values.shape[0])]
    sideways = _THIRDS[1][min(2, 3 * int(column) // values.shape[1])]
    place = "middle" if vertical == sideways else f"{vertical} {sideways}"
    said.append(
        f"The map is highest, {float(np.nanmax(values)):.3g} {unit_of(image['statistics'])}, in "
        f"the {place} of the picture."
    )
    share = float((values > calibration.map_threshold).mean())
    if share:
        said.append(
            f"Inside the contour, {_percent(share)} of the picture, the map is above "
            f"{calibration.map_threshold:.3g}: {_percent(calibration.false_alarm_rate)} of normal "
            "images reach that anywhere."
        )
    else:
        said.append(
            f"Nowhere is the map above {calibration.map_threshold:.3g}, which "
            f"{_percent(calibration.false_alarm_rate)} of normal images reach anywhere: no contour."
        )
    weights = image["scale_weights"]
    if len(weights) > 1 and max(weights) > 1.2 / len(weights):
        finest = ("finest", "middle", "coarsest") if len(weights) == 3 else None
        most = int(np.argmax(weights))
        name = finest[most] if finest else f"number {most + 1}"
        said.append(f"The {name} of {len(weights)} scales counts most, {_percent(max(weights))}.")
    return said


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
