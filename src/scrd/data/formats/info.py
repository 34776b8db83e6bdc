"""What a header says of an image, and the refusal of a file."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    """A sound file of a kind that is not read; the message says which."""


@dataclass(frozen=True)
class ImageInfo:
    """What a file's header says.

    Attributes:
        width: Columns of the decoded array.
        height: Rows of the decoded array.
        channels: 1 or 3, of the decoded array.
        bits: Bits of a stored sample, or of a palette index, for PNG and TIFF; 1 or 8 for JPEG
            and BMP.
        format: "PNG", "JPEG", "TIFF", "BMP", "DICOM", "NIfTI", or "array" of what is no file.
        values: What a pixel value means: "stored" (pictures), "display" (0 black to 255 white),
            "HU", "rescaled" (MR, PET: no common unit) or "NIfTI" (no unit known).
        modality: DICOM Modality, such as "CT"; None where the file does not say, as below.
        body_part: DICOM Body Part Examined, upper case.
        view: DICOM View Position, upper case.
        plane: "axial", "coronal", "sagittal" or "oblique".
        spacing: Between rows and between columns, in mm.
        localizer: A planning image.
        oddities: What the header says of its grey values that may not be true, a sentence each.
        windowed: The header names a window or lookup table for display, which made these
            "display" values; None where that does not matter.
        manufacturer: Of the device, as DICOM gives it, upper case.
    """

    width: int
    height: int
    channels: int
    bits: int
    format: str
    values: str = "stored"
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    plane: str | None = None
    spacing: tuple[float, float] | None = None
    localizer: bool = False
    oddities: tuple[str, ...] = ()
    windowed: bool | None = None
    manufacturer: str | None = None

    @property
    def kind(self) -> str:
        """Of the file: "DICOM", "NIfTI", or "picture" for all others."""
        return self.format if self.format in ("DICOM", "NIfTI") else "picture"
