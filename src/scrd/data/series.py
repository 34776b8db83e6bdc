"""Which images there are, and which of them belong together: series in geometric order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrd.data.copies import without_copies
from scrd.data.finding import PICTURE_SUFFIXES, in_words, look_through
from scrd.data.reading import file_format
from scrd.data.source import APART, Series, Source
from scrd.errors import ImageError

if TYPE_CHECKING:
    from scrd.data.formats.dicom import DicomHeader

_PARALLEL = 1e-3  # largest difference of direction cosines of parallel images
_SAME_PLACE = 0.01  # mm
_EVEN = 0.05  # of the usual distance between slices
_STRAIGHT = 0.5  # mm, of positions beside the line from the first to the last
_TILT = 1.0  # degrees


@dataclass(frozen=True)
class Listing:
    """The images below some paths.

    Attributes:
        sources: The images; those of one study follow one another, and so do those of one series,
            in their geometric order.
        failures: The files that hold images, but whose header cannot be read.
        left_out: How many DICOM files hold no image of a patient: reports, segmentations and
            presentation states, DICOMDIRs, and whatever this software wrote.
        copies: The files that are used once although they were met twice, with the reason: see
            :func:`scrd.data.copies.without_copies`.
        others: The files of the folders that are no images.
    """

    sources: tuple[Source, ...]
    failures: tuple[ImageError, ...]
    left_out: int
    copies: tuple[ImageError, ...] = ()
    others: tuple[Path, ...] = ()


def list_sources(paths: Iterable[Path]) -> Listing:
    """List the images of files and folders; headers are read, no pixel is decoded.

    Args:
        paths: Images, folders, DICOMDIR files.

    Raises:
        ImageError: A folder holds no images, or a DICOMDIR cannot be read.
    """
    files: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = look_through(path)
            if not found.images:
                passed = in_words(found.others)
                raise ImageError(
                    path, "; ".join(filter(None, ("no images in this folder", passed)))
                )
            files += found.images
            others += found.others
        elif path.name.upper() == "DICOMDIR" and path.is_file():
            from scrd.data.formats.dicom import read_dicomdir

            files += read_dicomdir(path)
        else:
            files.append(path)
    # study → its images; a picture is a study of its own
    studies: dict[Hashable, list[Source]] = {}
    headers: list[DicomHeader] = []
    failures: list[ImageError] = []
    left_out = 0
    copies = [
        ImageError(path, "given more than once; it is used once")
        for path, times in Counter(files).items()
        if times > 1
    ]
    for path in dict.fromkeys(files):
        if path.suffix.lower() in PICTURE_SUFFIXES:
            studies[path] = [Source(path)]
            continue
        try:
            kind = file_format(path)
            if kind == "NIfTI":
                studies[path] = list(_nifti_series(path).sources)
            elif kind != "DICOM":
                studies[path] = [Source(path)]
            else:
                from scrd.data.formats.dicom import read_header

                header = read_header(path)
                if header.own or not header.is_image:
                    left_out += 1
                else:
                    headers.append(header)
                    studies.setdefault(_study(header), [])
        except ImageError as error:
            failures.append(error)
    headers, same = without_copies(headers)
    study_of = {header.path: _study(header) for header in headers}
    for series in assemble(headers):
        studies[study_of[series.places[0][0]]] += series.sources
    return Listing(
        tuple(source for sources in studies.values() for source in sources),
        tuple(failures),
        left_out,
        (*copies, *same),
        tuple(others),
    )


def _nifti_series(path: Path) -> Series:
    from scrd.data.formats.nifti import read_nifti_info

    found = read_nifti_info(path)
    places = tuple((path, index) for index in range(found.slices))
    return Series(str(path), str(path), None, places, found.affine, found.problems, "NIfTI")


def _study(header: DicomHeader) -> tuple[str, str]:
    """What makes files one study: its UID, or else their folder; and whose it is."""
    return header.study_uid or str(header.path.parent), header.person


def assemble(headers: Sequence[DicomHeader]) -> list[Series]:
    """Put DICOM images into series, each in geometric order.

    Files without a Series Instance UID are series of their own; files without a Study Instance
    UID belong to the study of their folder. Images of two patients are never put together,
    whatever their UIDs say: then the names of study and series tell them apart, and the problems
    of the series say so.

    Args:
        headers: Of images, in any order, without copies.

    Returns:
        The series, those of one study in the order in which they first appear.
    """
    numbers = {
        key: f"patient {i}"
        for i, key in enumerate(sorted({h.patient for h in headers if h.patient}), 1)
    }
    members: dict[tuple[tuple[str, str], str], list[DicomHeader]] = {}
    owners: dict[str, set[str]] = {}
    places: dict[str, set[tuple[str, str]]] = {}
    for header in headers:
        key, uid = _study(header), header.series_uid or str(header.path)
        members.setdefault((key, uid), []).append(header)
        owners.setdefault(key[0], set()).add(key[1])
        places.setdefault(uid, set()).add(key)
    found = []
    for ((study, person), uid), inside in members.items():
        name, series = study, uid
        problems: list[str] = []
        if len(owners[study]) > 1:
            whose = _whose(person, sorted(owners[study]), numbers)
            name, series = f"{study}{APART}{whose})", f"{uid}{APART}{whose})"
            problems.append(
                f"{len(owners[study])} patients share its Study Instance UID; they are kept apart"
            )
        elif len(places[uid]) > 1:
            series = f"{uid}{APART}study {study})"
            problems.append("its Series Instance UID is that of a series of another study too")
        found.append(_series(name, series, inside, numbers, problems))
    return found


def _whose(person: str, all_of_them: Sequence[str], numbers: Mapping[str, str]) -> str:
    """An opaque name of a patient among those that share a Study Instance UID."""
    if person in numbers:
        return numbers[person]
    unnumbered = [key for key in all_of_them if key not in numbers]
    return f"no patient ID, {unnumbered.index(person) + 1}"


@dataclass(frozen=True)
class _Image:
    path: Path
    frame: int | None
    number: int
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None


def _series(
    study: str,
    uid: str,
    headers: Sequence[DicomHeader],
    numbers: Mapping[str, str],
    problems: list[str],
) -> Series:
    images = [
        _Image(h.path, frame, h.instance_number or 0, h.orientations[i], h.positions[i])
        for h in headers
        for i, frame in enumerate([None] if h.frames == 1 else range(h.frames))
    ]
    images.sort(key=lambda image: (image.number, str(image.path), image.frame or 0))
    problems += _mixed(headers)
    affine = None
    sizes = {(h.info.width, h.info.height) for h in headers}
    spacings = {h.info.spacing for h in headers}
    if len(images) > 1 and len(_frames_of_reference(headers)) < 2:
        images, steps, found = _geometric(images)
        problems += found
        spacing = next(iter(spacings))
        if steps is not None and len(sizes) == len(spacings) == 1 and spacing is not None:
            affine = np.eye(4)
            affine[:3, :3] = steps * [spacing[1], spacing[0], 1]
            affine[:3, 3] = images[0].position
            problems += _tilted(affine, {h.tilt for h in headers})
        elif steps is not None and len(sizes) == 1:
            problems.append(
                f"images of {len(spacings)} pixel spacings"
                if len(spacings) > 1
                else "its images have a place, but no pixel spacing"
            )
    return Series(
        uid,
        study,
        numbers.get(headers[0].patient or ""),
        tuple((image.path, image.frame) for image in images),
        affine,
        tuple(problems),
    )


def _mixed(headers: Sequence[DicomHeader]) -> Iterator[str]:
    """What a series should have one of, and has several."""
    instances = Counter(h.sop_uid for h in headers if h.sop_uid)
    again = [times for times in instances.values() if times > 1]
    if again:
        shared = "one SOP Instance UID" if len(again) == 1 else f"{len(again)} SOP Instance UIDs"
        yield f"{sum(again)} different images carry {shared}"
    for values, what in (
        ({(h.info.width, h.info.height) for h in headers}, "sizes"),
        ({h.info.modality for h in headers} - {None}, "modalities"),
        (_frames_of_reference(headers), "frames of reference"),
    ):
        if len(values) > 1:
            yield f"images of {len(values)} {what}"
    for part, what in enumerate(("names", "dates of birth")):
        hidden = {h.named[part] for h in headers} - {None}
        if len(hidden) > 1:
            yield f"its files give {len(hidden)} {what} for one patient"


def _frames_of_reference(headers: Sequence[DicomHeader]) -> set[str]:
    """Those in which images have a place: positions in two of them cannot be compared."""
    return {h.frame_of_reference for h in headers if h.frame_of_reference and any(h.positions)}


def _geometric(
    images: list[_Image],
) -> tuple[list[_Image], NDArray[np.float64] | None, list[str]]:
    """Order images along the normal of their planes, if they are parallel.

    Returns:
        The images; (3, 3), as columns the directions of columns and rows and the step from slice
        to slice in mm, None without an even geometry; and what is odd.
    """
    placed = [image for image in images if image.orientation and image.position]
    if len(placed) < len(images):
        if placed:
            return images, None, ["some images have no position"]
        half = any(image.orientation or image.position for image in images)
        return images, None, ["its images say only half of where they lie"] if half else []
    cosines = np.array([image.orientation for image in images], dtype=np.float64)
    if np.abs(cosines - cosines[0]).max() > _PARALLEL:
        rounded = {tuple(c) for c in cosines.round(2).tolist()}
        return images, None, [f"images of {len(rounded)} orientations"]
    along, down = cosines[0, :3], cosines[0, 3:]
    normal = np.cross(along, down)
    positions = np.array([image.position for image in images], dtype=np.float64)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    images, heights, positions = [images[i] for i in order], heights[order], positions[order]
    gaps = np.diff(heights)
    problems = _odd_gaps(heights, gaps)
    if problems:
        return images, None, problems
    step = (positions[-1] - positions[0]) / (len(images) - 1)
    beside = positions - positions[0] - np.arange(len(images))[:, None] * step
    beside -= (beside @ normal)[:, None] * normal
    off = np.linalg.norm(beside, axis=1).max()
    if off > _STRAIGHT:
        return images, None, [f"its slices are shifted against each other, by up to {off:.1f} mm"]
    return images, np.stack([along, down, step], axis=1), []


def _tilted(affine: NDArray[np.float64], told: set[float | None]) -> list[str]:
    """Whether the gantry's tilt that the headers tell is the shear of their positions."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    across, step = normal / np.linalg.norm(normal), affine[:3, 2]
    shear = np.rad2deg(np.arccos(min(1.0, abs(step @ across) / np.linalg.norm(step))))
    if all(tilt is None or abs(abs(tilt) - shear) <= _TILT for tilt in told):
        return []
    tilts = " and ".join(f"{t:.3g}" for t in sorted({abs(t) for t in told if t is not None}))
    return [
        f"two geometries: its headers tell a gantry tilt of {tilts} degrees, the positions of its "
        f"slices one of {shear:.0f}; the positions are used"
    ]


def _odd_gaps(heights: NDArray[np.float64], gaps: NDArray[np.float64]) -> list[str]:
    problems = []
    apart = gaps[gaps > _SAME_PLACE]
    if len(apart) < len(gaps):
        levels = np.concatenate([[0], np.cumsum(gaps > _SAME_PLACE)])
        times = set(Counter(levels.tolist()).values())
        if len(times) == 1:
            problems.append(f"{times.pop()} images at each position, such as echoes or times")
        else:
            problems.append(f"{len(gaps) - len(apart)} images at a position that is taken")
    if len(apart) > 1:
        usual = float(np.median(apart))
        ratios = apart / usual
        missing = np.where((ratios > 1.5) & (np.abs(ratios - ratios.round()) < 0.1), ratios - 1, 0)
        if missing.any():
            problems.append(f"{round(missing.sum())} slices are missing")
        uneven = (np.abs(ratios - 1) > _EVEN) & (missing == 0)
        if uneven.any():
            problems.append(
                f"uneven spacing, from {apart.min():.3g} to {apart.max():.3g} mm between slices"
            )
    return problems
