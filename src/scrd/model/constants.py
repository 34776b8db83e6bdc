"""The constants that act when an image is scored; a model keeps those it was made with."""

from __future__ import annotations

from dataclasses import dataclass

TOP_FRACTION = 0.02
OFFSET = 0.02
FARTHEST = 3.0


@dataclass(frozen=True)
class Constants:
    """How distance maps become scores.

    The defaults are what models of 0.2.0 mean, which were saved without them, and never change;
    new models have `NEW`.

    Attributes:
        top_fraction: share of the pixels that ``top`` pooling averages.
        offset: added to the excess before its logarithm, in standard deviations of normals.
        farthest: covariates beyond this many standard deviations of normals are taken as this far.
    """

    top_fraction: float = 0.02
    offset: float = 0.02
    farthest: float = 3.0


NEW = Constants(top_fraction=TOP_FRACTION, offset=OFFSET, farthest=FARTHEST)
"""Those of a model that is made now."""
