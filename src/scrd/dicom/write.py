"""Writing the objects of a study into a folder."""

from __future__ import annotations

import io
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from scrd.dicom.labels import KINDS, model_hash
from scrd.dicom.parametric_map import parametric_maps
from scrd.dicom.sc import overlays
from scrd.dicom.seg import fractional_segmentations, segmentations
from scrd.dicom.sources import SourceSeries, Unwritable, read_sources, silence
from scrd.dicom.sr import report
from scrd.dicom.uids import tag
from scrd.errors import ConfigError
from scrd.system.files import atomic

if TYPE_CHECKING:
    from scrd.scoring.scorer import Scorer
    from scrd.scoring.verdicts import StudyResult

_MAKERS: dict[str, Callable[[SourceSeries, Scorer], Iterator[Callable[[], Dataset | None]]]] = {
    "seg": segmentations,
    "sc": overlays,
    "pm": parametric_maps,
    "fseg": fractional_segmentations,
}
_KINDS = tuple(kind.name for kind in KINDS)
_SHARED = "different images carry one SOP Instance UID, so that nothing can refer to one of them"


@dataclass(frozen=True)
class Written:
    """An object that was written.

    Attributes:
        path: The file.
        kind: Which of "sr", "seg", "sc", "pm" and "fseg" it is.
    """

    path: Path
    kind: str


@dataclass(frozen=True)
class Unwritten:
    """An object that could not be made.

    Attributes:
        kind: Which of "sr", "seg", "sc", "pm" and "fseg" it is.
        series: `tag` of the Series Instance UID; of the Study Instance UID for "sr".
        reason: Why, without a value of a header.
    """

    kind: str
    series: str
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        level = "study" if self.kind == "sr" else "series"
        return f"{self.kind} of {level} {self.series}: {self.reason}"


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds of objects without repetition.

    Raises:
        ConfigError: An unknown kind.
    """
    for kind in kinds:
        if kind not in _KINDS:
            raise ConfigError(f"DICOM objects are {', '.join(_KINDS)}, not {kind!r}")
    return tuple(dict.fromkeys(kinds))


def write_objects(
    folder: Path, study: StudyResult, detector: Scorer, kinds: Sequence[str]
) -> list[Written | Unwritten]:
    """Write what was found in a DICOM study as DICOM objects of that study.

    The sources are read again and never changed. A second run with the same model writes the same
    files with the same UIDs; in them differ only the dates and times of creation, content and
    capture, and what depends on the versions of scrd and highdicom.

    Args:
        folder: Made if needed. Files are called ``<kind>-<tag of the series UID>[-<n>].dcm``, of
            the study UID for "sr"; each is there whole or not at all.
        study: Scored by `detector`.
        detector: The model.
        kinds: Which objects: "sr" (:mod:`scrd.dicom.sr`), "seg" and "fseg"
            (:mod:`scrd.dicom.seg`), "sc" (:mod:`scrd.dicom.sc`), "pm"
            (:mod:`scrd.dicom.parametric_map`).

    Returns:
        What was written and what could not be, kind by kind. A series whose map is nowhere above
        the threshold has no "seg" and no entry.

    Raises:
        ConfigError: An unknown kind, a study that does not come from DICOM files, or a detector
            that was never saved and so has no fingerprint, or that no normals calibrated.
        OSError: The folder cannot be written to.
    """
    kinds = check_kinds(kinds)
    if any(result.series.format != "DICOM" for result in study.series):
        raise ConfigError(
            "DICOM objects refer to the DICOM files they come from; these are NIfTI or pictures"
        )
    detector.calibration.require("no DICOM object can be written")
    model_hash(detector)
    folder.mkdir(parents=True, exist_ok=True)
    with silence():
        return list(dict.fromkeys(_outcomes(folder, study, detector, kinds)))


def _outcomes(
    folder: Path, study: StudyResult, detector: Scorer, kinds: Sequence[str]
) -> Iterator[Written | Unwritten]:
    sources = []
    unread = []
    for result in study.series:
        if not result.scored:
            continue
        try:
            sources.append(read_sources(result))
        except Unwritable as error:
            unread.append((tag(result.series.uid), str(error)))
    if len({image.header.owner for series in sources for image in series.images}) > 1:
        for kind in kinds:
            yield Unwritten(kind, tag(study.uid), "its images are of several patients or studies")
        return
    unclear = _shared_uids(sources)
    for series in [s for s in sources if unclear & {i.sop_uid for i in s.images}]:
        sources.remove(series)
        unread.append((tag(series.result.series.uid), _SHARED))
    for kind in kinds:
        if kind == "sr":
            if unread and not sources:
                yield Unwritten(kind, tag(study.uid), unread[0][1])
            else:
                if kinds == ("sr",):
                    for name, reason in unread:
                        yield Unwritten(kind, tag(study.uid), f"without series {name}: {reason}")
                make = partial(report, study, sources, detector)
                yield from _write(folder, kind, tag(study.uid), iter([make]))
            continue
        for name, reason in unread:
            yield Unwritten(kind, name, reason)
        for series in sources:
            name = tag(series.result.series.uid)
            yield from _write(folder, kind, name, _MAKERS[kind](series, detector))


def _shared_uids(sources: Sequence[SourceSeries]) -> set[str]:
    """SOP Instance UIDs that several files carry: nobody can refer to one of these."""
    files = {(i.sop_uid, i.scored.source.path) for series in sources for i in series.images}
    return {uid for uid, times in Counter(uid for uid, _ in files).items() if times > 1}


def _write(
    folder: Path, kind: str, name: str, makers: Iterator[Callable[[], Dataset | None]]
) -> Iterator[Written | Unwritten]:
    """Make and write the objects of a kind and series one by one."""
    number = 0
    while True:
        number += 1
        try:
            make = next(makers, None)
            if make is None:
                return
            path = folder / (f"{kind}-{name}.dcm" if number == 1 else f"{kind}-{name}-{number}.dcm")
            made = make()
            if made is not None:
                _save(made, path)
                yield Written(path, kind)
        except OSError:
            raise
        except Exception as error:  # one object never stops the others
            yield Unwritten(kind, name, _reason(error))


def _reason(error: Exception) -> str:
    """Why, in words of ours: a message from elsewhere may quote a header."""
    if isinstance(error, Unwritable):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"the header does not fit the object ({type(error).__name__} in {where})"


def _save(made: Dataset, path: Path) -> None:
    # encoded in memory: a full disk leaves pydicom with a file that complains when it is let go
    encoded = io.BytesIO()
    made.save_as(encoded, enforce_file_format=True)
    with atomic(path) as temporary:
        temporary.write_bytes(encoded.getvalue())
