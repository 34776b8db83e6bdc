"""Whether an image may come from a part of a series, where the series sets its window."""

from __future__ import annotations

from scrd.data.intensity import Intensity
from scrd.data.source import Source
from scrd.scoring.calibration import Level

_WHOLE = 0.8  # of the smallest series in training: whole series differ, too


def part_of_series(source: Source, intensity: Intensity, normals: Level) -> tuple[str, ...]:
    """The doubt about an image whose window would be another one in its whole series.

    Args:
        source: The image.
        intensity: The model's rule; only one of scope "series" depends on the other images.
        normals: The model's normal series.

    Returns:
        One sentence, or none.
    """
    if intensity.scope != "series":
        return ()
    images = 1 if source.series is None else len(source.series.places)
    if images >= _WHOLE * normals.fewest:
        return ()
    many = "1 image" if images == 1 else f"{images} images"
    return (
        f"scored by the grey values of a series of {many}, where the model knows series of "
        f"{normals.fewest} and more: a part of a series may score otherwise than the whole",
    )
