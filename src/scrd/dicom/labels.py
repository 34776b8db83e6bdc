"""What all objects have in common: who made them, in which series, for which patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import UID

from scrd.dicom.sources import REQUIRED_IDENTITY, Header, SourceImage
from scrd.dicom.uids import derived_uid
from scrd.errors import ConfigError
from scrd.system.version import __version__

if TYPE_CHECKING:
    from scrd.scoring.scorer import Scorer

MAKER = "scrd"
"""Manufacturer of every object; readers know their own results by it."""

SERIAL = 16
"""Characters of the model's hash that stand as Device Serial Number in every object."""


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        name: As in options and file names.
        description: Series Description.
        number: Series Number.
    """

    name: str
    description: str
    number: int


SR = Kind("sr", "scrd anomaly report (research use only)", 9001)
SEG = Kind("seg", "scrd anomaly regions (research use only)", 9002)
SC = Kind("sc", "scrd anomaly overlay (research use only)", 9003)
PM = Kind("pm", "scrd anomaly map (research use only)", 9004)
FSEG = Kind("fseg", "scrd anomaly heat (research use only)", 9005)
KINDS = (SR, SEG, SC, PM, FSEG)


def model_hash(detector: Scorer) -> str:
    """`Detector.fingerprint`.

    Raises:
        ConfigError: The detector was never saved.
    """
    if detector.fingerprint is None:
        raise ConfigError("DICOM objects name the model by the hash of its files: save it first")
    return detector.fingerprint


def labels(
    kind: Kind,
    detector: Scorer,
    header: Header,
    *,
    series_source: str,
    source: str,
    part: str,
    number: int,
) -> dict[str, Any]:
    """The arguments that every constructor of highdicom takes.

    Args:
        kind: The kind of object.
        detector: The model.
        header: One of the sources': patient and study belong to every UID.
        series_source: Series or study that the object's series is made of.
        source: Image, series or study that the object is made of.
        part: Tells several of a kind from one source apart.
        number: Instance Number, from 1.
    """
    model, owner = model_hash(detector), header.owner
    series = derived_uid(f"{kind.name} series", f"{owner} {series_source}", model)
    return {
        "series_instance_uid": series,
        "series_number": kind.number,
        "series_description": kind.description,
        "sop_instance_uid": derived_uid(kind.name, f"{owner} {source}", model, part),
        "instance_number": number,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": __version__,
        "device_serial_number": model[:SERIAL],
    }


def finish(made: Dataset, images: Sequence[SourceImage]) -> Dataset:
    """Give a new object the patient and study of its sources, and UIDs that repeat.

    Args:
        made: The object; changed.
        images: What it was made of.

    Returns:
        `made`.
    """
    _undisguise(made, {i.sop_uid: i.header.dataset.SOPClassUID for i in images})
    for keyword in REQUIRED_IDENTITY:
        if keyword not in made:
            setattr(made, keyword, "")
    identity = images[0].header.identity
    for tag in tuple(identity.keys()):
        made[tag] = identity.get_item(tag)
    # else pydicom decodes the bytes to encode them again, and loses those it does not understand;
    # what it does for objects that are new it then leaves out
    correct_ambiguous_vr(made, True)
    made.set_original_encoding(False, True)
    if "SpecificCharacterSet" in identity:
        made.set_original_encoding(False, True, convert_encodings(identity.SpecificCharacterSet))
    if "DimensionOrganizationSequence" in made:
        uid = derived_uid("dimensions", made.SOPInstanceUID, "")
        for item in (*made.DimensionOrganizationSequence, *made.get("DimensionIndexSequence", ())):
            item.DimensionOrganizationUID = uid
    return made


def _undisguise(made: Dataset, classes: dict[str, UID]) -> None:
    """Refer to the sources by the SOP classes that they have."""
    for element in made:
        if element.VR == "SQ":
            for item in element.value:
                _undisguise(item, classes)
    source = made.get("ReferencedSOPInstanceUID")
    if source in classes:
        made.ReferencedSOPClassUID = classes[source]
