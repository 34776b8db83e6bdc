"""Anatomical planes, and how radiologists look at them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

PLANES = ("sagittal", "coronal", "axial")
"""By the patient axis that the plane stands on: left, back, head."""

DISPLAY_AXES = {"axial": "SPL", "coronal": "PIL", "sagittal": "RIP"}
"""Where the slices, the rows and the columns of a plane run to, as DICOM images usually lie: the
patient's left on the right side of the picture; slices run along rows x columns, right-handed."""

_NEAR = np.cos(np.deg2rad(30))


def plane_of(normal: ArrayLike) -> str:
    """Name the plane that stands on a direction.

    Args:
        normal: (3,) in patient coordinates, any length but zero, either sign.

    Returns:
        The plane whose axis is nearest; "oblique" if that is more than 30 degrees away.

    >>> plane_of((0, 0.1, -1))
    'axial'
    >>> plane_of((0, 1, -1))
    'oblique'
    """
    cosines = np.abs(np.asarray(normal, dtype=np.float64))
    cosines = cosines / np.linalg.norm(cosines)
    nearest = int(cosines.argmax())
    return PLANES[nearest] if cosines[nearest] >= _NEAR else "oblique"
