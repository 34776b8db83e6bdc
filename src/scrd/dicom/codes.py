"""The coded terms of the objects: standard ones where there are, else of the scheme 99SCRD.

==================  ==========================================================================
99SCRD              meaning
==================  ==========================================================================
anomaly-score       Anomaly score: larger is more anomalous; comparable within one model only
p-value             Conformal p-value: the share of normals that score this high or higher
images              Number of images that a verdict stands on
flag                Flag at the calibrated false-alarm rate; its value is one of the two below
flagged             Flagged: the p-value is at most the false-alarm rate
not-flagged         Not flagged
level               What a verdict is about; its value is one of the three below
study               A study
series              A series
image               An image, or a frame of a multi-frame image
pooling             How the verdicts of images make one; its value is one of the two below
calibrated          Pooled score, compared with normals pooled alike
bonferroni          Smallest p-value of the images times their number
intended-use        Intended use, in words
anomaly-map         Anomaly map: the larger, the less normal
==================  ==========================================================================
"""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

SCHEME = "99SCRD"
INTENDED_USE_TEXT = "For research use only. Not a medical device."


def _own(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, SCHEME, meaning)


def scheme() -> CodingSchemeIdentificationItem:
    """What a document says of the scheme 99SCRD."""
    return CodingSchemeIdentificationItem(
        designator=SCHEME, name="Codes of scrd", responsible_organization="scrd"
    )


SCORE = _own("anomaly-score", "Anomaly score")
P_VALUE = _own("p-value", "Conformal p-value")
IMAGES = _own("images", "Number of images")
FLAG = _own("flag", "Flag at the calibrated false-alarm rate")
FLAGS = {True: _own("flagged", "Flagged"), False: _own("not-flagged", "Not flagged")}
LEVEL = _own("level", "Level of the verdict")
LEVELS = {
    "study": _own("study", "Study"),
    "series": _own("series", "Series"),
    "image": _own("image", "Image"),
}
POOLING = _own("pooling", "How the images make one verdict")
POOLINGS = {
    "calibrated": _own("calibrated", "Pooled score against normals pooled alike"),
    "bonferroni": _own("bonferroni", "Smallest p-value of images times their number"),
}
INTENDED_USE = _own("intended-use", "Intended use")
ANOMALY_MAP = _own("anomaly-map", "Anomaly map")

NO_UNITS = codes.UCUM.NoUnits
ARTIFICIAL_INTELLIGENCE = codes.DCM.ArtificialIntelligence
COMMENT = codes.DCM.Comment
DEVICE = codes.DCM.Device
IMAGING_PROCEDURE = codes.SCT.ImagingProcedure
# of CID 7150, and as a type more general than anything in CID 7159
ABNORMAL_STRUCTURE = CodedConcept("49755003", "SCT", "Morphologically abnormal structure")
SOURCE_IMAGE = codes.DCM.SourceImageForImageProcessingOperation
# TID 1500, row 12
QUALITATIVE_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
