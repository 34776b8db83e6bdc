"""How the patient lies in an image, from its header."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

# Defined Terms of Body Part Examined for which "frontal" leaves no doubt (PS3.16, annex L)
_TRUNK = frozenset(
    ("ABDOMEN", "ABDOMENPELVIS", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "CSPINE", "HEAD")
    + ("HEART", "LSPINE", "NECK", "PELVIS", "RIB", "SKULL", "SPINE", "STERNUM", "TSPINE")
)
_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))  # towards falling and growing x, y, z
_OBLIQUE = 0.26  # sin 15°: a second axis with at least this share gets a letter too


def patient_orientation(header: Dataset) -> tuple[str, str] | None:
    """Where the rows and the columns of an image point to (PS3.3, C.7.6.1.1.1).

    From Patient Orientation where it is filled, else from Image Orientation (Patient), else for a
    frontal view of the trunk or head as such images are stored, the patient facing the viewer.

    Returns:
        Such as ("L", "F"): rows run to the left, columns to the feet. None where that is unknown.
    """
    given = header.get("PatientOrientation")
    if given is not None and len(given) == 2 and all(isinstance(x, str) and x for x in given):
        return str(given[0]), str(given[1])
    cosines = _cosines(header)
    if cosines is not None:
        return _letters(cosines[:3]), _letters(cosines[3:])
    frontal = str(header.get("ViewPosition", "")).strip().upper() in ("PA", "AP")
    if frontal and str(header.get("BodyPartExamined", "")).strip().upper() in _TRUNK:
        return "L", "F"
    return None


def laterality(header: Dataset) -> str:
    """R or L as the header says of a paired body part; empty where it does not."""
    for keyword in ("ImageLaterality", "Laterality"):
        side = str(header.get(keyword, "")).strip().upper()
        if side in ("R", "L"):
            return side
    return ""


def _cosines(header: Dataset) -> list[float] | None:
    if "ImageOrientationPatient" in header:
        return [float(x) for x in header.ImageOrientationPatient]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in header.get(keyword, ())[:1]:
            for plane in group.get("PlaneOrientationSequence", ()):
                return [float(x) for x in plane.ImageOrientationPatient]
    return None


def _letters(direction: list[float]) -> str:
    """The axes of the patient along a direction, the longest first."""
    order = np.argsort(-np.abs(direction), kind="stable")
    return "".join(
        _LETTERS[axis][int(direction[axis] > 0)]
        for rank, axis in enumerate(order)
        if rank == 0 or abs(direction[axis]) >= _OBLIQUE
    )
