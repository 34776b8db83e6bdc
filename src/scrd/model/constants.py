"""The constants that act when an image is scored; a model keeps those it was made with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """How distance maps become scores.

    Models of 0.2.0 were saved without them and mean these defaults: a new model is given others
    where it is built (:func:`scrd.model.build_model`), never here.

    Attributes:
        top_fraction: share of the pixels that ``top`` pooling averages.
        offset: added to the excess before its logarithm, in standard deviations of normals.
        farthest: covariates beyond this many standard deviations of normals are taken as this far.
    """

    top_fraction: float = 0.02
    offset: float = 0.02
    farthest: float = 3.0
