"""What of a study is scored: its images, without what scrd itself stored beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from scrd.dicom.labels import MAKER

# Modality (0008,0060) of objects without an image of the patient, DICOM PS3.3 C.7.3.1.1.1
# fmt: off
_NOT_IMAGES = frozenset({
    "ANN", "ASMT", "AU", "CFM", "CTPROTOCOL", "DOC", "ECG", "EEG", "EMG", "EOG", "EPS", "FID",
    "HD", "KER", "KO", "LEN", "M3D", "PLAN", "POS", "PR", "REG", "RESP", "RTDOSE", "RTINTENT",
    "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SMR", "SR", "SRF",
    "STAIN", "TEXTUREMAP", "VA", "XAPROTOCOL",
})
# fmt: on


def is_source(modality: str | None, manufacturer: str | None) -> bool:
    """Whether a series or instance with these header values is to be scored.

    Args:
        modality: Modality (0008,0060); None or empty where the header does not say, which is
            taken as an image.
        manufacturer: Manufacturer (0008,0070).
    """
    if (manufacturer or "").strip() == MAKER:
        return False
    return (modality or "").strip().upper() not in _NOT_IMAGES


def fingerprint(names: Iterable[str]) -> str:
    """SHA-256, in hexadecimal, of a set of names that stand for SOP Instance UIDs one to one."""
    return hashlib.sha256("\n".join(sorted(set(names))).encode()).hexdigest()
