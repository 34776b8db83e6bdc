"""What a model was trained on, and whether a new image is of that kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from scrd.data.formats.info import ImageInfo
from scrd.data.plausibility import Plausible

_SIZE_FACTOR = 2.0
_ASPECT_FACTOR = 2.5
_SPACING_FACTOR = 1.5
# computed and digital radiography show the same thing
_ALIKE = {"DX": "CR"}


@dataclass(frozen=True)
class Contract:
    """The kinds of the training images; an empty tuple allows everything.

    Attributes:
        units: What pixel values mean, see `unit`.
        modalities: DICOM modalities; CR and DX count as one, written "CR".
        body_parts: DICOM body parts, upper case.
        views: DICOM view positions, upper case.
        planes: Nearest anatomical planes.
        channels: 1 for grey, 3 for colour.
        shorter_side: Smallest and largest shorter side in pixels.
        spacing: Smallest and largest distance between pixels in mm; None where unknown.
        files: Kinds of files: "DICOM", "NIfTI", or "picture" for all others.
        windowed: Whether the files name a display window, see :class:`ImageInfo`.
        aspect: Smallest and largest width divided by height.
        plausible: Which grey values and how much content.
        manufacturers: Of the devices, as DICOM files give them. Another one is neither refused
            nor doubted; `scrd monitor` tells it.
    """

    units: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    shorter_side: tuple[int, int] | None = None
    spacing: tuple[float, float] | None = None
    files: tuple[str, ...] = ()
    windowed: tuple[bool, ...] = ()
    aspect: tuple[float, float] | None = None
    plausible: Plausible = field(default_factory=Plausible)
    manufacturers: tuple[str, ...] = ()

    def check(self, info: ImageInfo) -> tuple[list[str], list[str]]:
        """Compare an image's header with the training images.

        Returns:
            Reasons to refuse the image: another unit, modality, body part, view or plane, a
            localizer, colour for grey in DICOM. And reasons for doubt: what the header leaves
            open, another kind of file, a display window where there was none and the reverse, a
            shorter side beyond twice or half of, a spacing beyond 1.5 times, or an
            aspect ratio beyond 2.5 times, those seen. What speaks against its pixels
            is told by ``plausible``.
        """
        refusals: list[str] = []
        doubts: list[str] = list(info.oddities)
        if info.localizer:
            refusals.append("a localizer")
        found = unit(info)
        if self.units and found not in self.units:
            unknown = "NIfTI" in (found, *self.units) and found != "display"
            (doubts if unknown else refusals).append(
                f"pixel values are {_UNITS.get(found, found)}; trained on "
                + " and ".join(_UNITS.get(u, u) for u in self.units)
            )
        for what, value, seen in (
            ("modality", _modality(info), self.modalities),
            ("body part", info.body_part, self.body_parts),
            ("view", info.view, self.views),
            ("plane", info.plane, self.planes),
        ):
            if not seen or value in seen:
                continue
            names = ", ".join(seen)
            if value is None:
                doubts.append(f"the file gives no {what}; trained on {names}")
            else:
                refusals.append(f"{what} {value}; trained on {names}")
        if self.channels and info.channels not in self.channels:
            kinds = {1: "grey", 3: "colour"}
            (refusals if info.format == "DICOM" else doubts).append(
                f"a {kinds[info.channels]} image; trained on {kinds[self.channels[0]]} ones"
            )
        doubts += self._handled(info)
        side = min(info.width, info.height)
        if self.shorter_side and not _within(side, self.shorter_side, _SIZE_FACTOR):
            low, high = self.shorter_side
            doubts.append(
                f"{info.width}x{info.height} pixels; the shorter side was {_span(low, high)} in "
                "training"
            )
        if self.spacing and info.spacing:
            low_mm, high_mm = self.spacing
            if not all(_within(s, self.spacing, _SPACING_FACTOR) for s in info.spacing):
                doubts.append(
                    f"pixels of {info.spacing[0]:.3g} x {info.spacing[1]:.3g} mm; trained on "
                    f"{_span(round(low_mm, 3), round(high_mm, 3))} mm"
                )
        if self.aspect and not _within(info.width / info.height, self.aspect, _ASPECT_FACTOR):
            least, most = (round(ratio, 2) for ratio in self.aspect)
            doubts.append(
                f"{info.width}x{info.height} pixels; width by height was {_span(least, most)} in "
                "training"
            )
        return refusals, doubts

    def _handled(self, info: ImageInfo) -> list[str]:
        """Doubts about how the pixels came into the file: they may have lost contrast there."""
        doubts = []
        if self.files and info.kind not in self.files:
            seen = " and ".join(_FILES[kind] for kind in self.files)
            doubts.append(f"one of the {_FILES[info.kind]}; trained on {seen}")
        if info.windowed is not None and self.windowed and info.windowed not in self.windowed:
            doubts.append(
                "a display window in the header; the training images had none"
                if info.windowed
                else "no display window in the header; the training images had one"
            )
        return doubts


_FILES = {"DICOM": "DICOM images", "NIfTI": "NIfTI volumes", "picture": "pictures and arrays"}
_UNITS = {
    "display": "display values of 8 bits",
    "rescaled": "rescaled values without a common unit",
    "NIfTI": "values of unknown unit",
    "stored": "stored values of more than 8 bits",
}


def unit(info: ImageInfo) -> str:
    """What pixel values mean: "display", "HU", "rescaled", "NIfTI" or, deep pictures, "stored".

    A picture of up to 8 bits has display values, 0 to 255.
    """
    return "display" if info.values == "stored" and info.bits <= 8 else info.values


def learn_contract(infos: Iterable[ImageInfo]) -> Contract:
    """Take the contract from the headers of training images."""
    seen = list(infos)
    sides = [min(i.width, i.height) for i in seen]
    spacings = [s for i in seen if i.spacing for s in i.spacing]
    aspects = [i.width / i.height for i in seen]
    return Contract(
        units=_distinct(unit(i) for i in seen),
        modalities=_distinct(_modality(i) for i in seen),
        body_parts=_distinct(i.body_part for i in seen),
        views=_distinct(i.view for i in seen),
        planes=_distinct(i.plane for i in seen),
        channels=tuple(sorted({i.channels for i in seen})),
        shorter_side=(min(sides), max(sides)) if sides else None,
        spacing=(min(spacings), max(spacings)) if spacings else None,
        files=_distinct(i.kind for i in seen),
        windowed=tuple(sorted({i.windowed for i in seen if i.windowed is not None})),
        aspect=(min(aspects), max(aspects)) if aspects else None,
        manufacturers=_distinct(i.manufacturer for i in seen),
    )


def _modality(info: ImageInfo) -> str | None:
    return _ALIKE.get(info.modality, info.modality) if info.modality else None


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _within(value: float, span: tuple[float, float], factor: float) -> bool:
    return span[0] / factor <= value <= span[1] * factor


def _span(low: float, high: float) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
