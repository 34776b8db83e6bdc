"""Pictures, maps and DICOM objects of results, drawn when they are asked for and kept.

Each function writes one file. They run in a process of their own (:mod:`scrd.serve.drawer`):
decoders are fed with what strangers sent.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scrd.data.preprocess import map_to_source
from scrd.data.reading import read_image, read_info
from scrd.data.source import Source
from scrd.errors import ImageError, ScrdError
from scrd.outputs.pictures import write_raw_map, write_volume_map
from scrd.report.overlay import display_image, draw
from scrd.scoring.scorer import Scored
from scrd.serve.described import DescribedScorer
from scrd.serve.records import scored_of, series_result, source_of, study_result
from scrd.serve.why import explain, unit_of
from scrd.system.files import atomic

_THUMB, _VIEW, _HEAT = 128, 1024, 256  # longest sides in pixels
Detail = Mapping[str, Any]


class Nothing(ScrdError):
    """What was asked for does not exist; the message says why."""


def thumbnail(
    path: Path, model: DescribedScorer, detail: Detail, number: int, folder: Path
) -> None:
    """Write a small JPEG of an image as it is shown."""
    source = source_of(detail, number, folder)
    image = Image.fromarray(display_image(read_image(source), _window(model, source)))
    image.thumbnail((_THUMB, _THUMB))
    with atomic(path) as temporary:
        image.save(temporary, "JPEG", quality=80)


def source_picture(
    path: Path,
    model: DescribedScorer,
    detail: Detail,
    number: int,
    folder: Path,
    window: Sequence[float] | None,
) -> None:
    """Write an image as a PNG of 8 bits, of its own size.

    Args:
        path: of the PNG.
        model: whose window it is shown with where none is given.
        detail: of the result.
        number: of the image in it.
        folder: where the job's files lie.
        window: grey values shown as black and as white.
    """
    source = source_of(detail, number, folder)
    shown = (window[0], window[1]) if window else _window(model, source)
    image = Image.fromarray(display_image(read_image(source), shown))
    with atomic(path) as temporary:
        image.save(temporary, "PNG", compress_level=1)


def overlay(
    path: Path, model: DescribedScorer, detail: Detail, number: int, folder: Path, maps: Path
) -> None:
    """Write the image beside itself under its map, as `scrd score` draws it, as PNG."""
    scored = _scored(detail, number, folder, maps)
    picture = draw(model, scored, "Anomaly map")  # a name may be a patient's
    with atomic(path) as temporary:
        picture.save(temporary, "PNG", compress_level=1)


def raw_map(
    path: Path, model: DescribedScorer, detail: Detail, number: int, folder: Path, maps: Path
) -> None:
    """Write the map of an image in its geometry, (H, W) float32, as ``.npy``."""
    write_raw_map(model, _scored(detail, number, folder, maps), path)


def volume_map(
    path: Path, model: DescribedScorer, detail: Detail, folder: Path, maps: Path
) -> None:
    """Write the maps of an even volume as NIfTI.

    Raises:
        Nothing: the result is no even volume.
    """
    if detail["series"] is None or detail["series"]["affine"] is None:
        raise Nothing("only the maps of an even volume make up a volume")
    write_volume_map(model, series_result(detail, folder, _maps(maps)), path)


def dicom(
    path: Path,
    model: DescribedScorer,
    details: Sequence[Detail],
    folder: Path,
    maps: Path,
    kind: str,
    tag: str,
) -> None:
    """Write DICOM objects of a kind: one file, or a zip of several.

    Args:
        path: of what is written.
        model: that scored.
        details: of the series of one study.
        folder: where the job's files lie.
        maps: of the job.
        kind: ``sr``, ``seg`` or ``sc``.
        tag: of the series that they are wanted of; of ``sr``, of the study.

    Raises:
        Nothing: there is none to be had; the message says why.
    """
    import tempfile

    from scrd.dicom.write import Unwritten, Written, write_objects

    if any(d["series"] is None or d["series"]["format"] != "DICOM" for d in details):
        raise Nothing("only of DICOM images are DICOM objects made")
    study = study_result(details, folder, _maps(maps))
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = write_objects(Path(scratch), study, model, (kind,))
        files = [o.path for o in made if isinstance(o, Written) and tag in o.path.name]
        if not files:
            missing = [o for o in made if isinstance(o, Unwritten)]
            raise Nothing(
                missing[0].reason if missing else "nowhere is the map above its threshold"
            )
        with atomic(path) as temporary:
            if len(files) == 1:
                temporary.write_bytes(files[0].read_bytes())
            else:
                with zipfile.ZipFile(temporary, "w") as archive:
                    for file in files:
                        archive.write(file, file.name)


def view(
    path: Path, model: DescribedScorer, detail: Detail, number: int, folder: Path, maps: Path
) -> None:
    """Write what the page's viewer shows of an image: its grey values and its map.

    The file is: the length of a JSON header, uint32; the header; the picture, uint8 or uint16;
    the map, float32. All little-endian, each part beginning at a multiple of 8 bytes.
    """
    source = source_of(detail, number, folder)
    pixels = read_image(source)
    shown = _window(model, source)
    small = _reduced(pixels)
    if small.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        low, high = float(small.min()), float(small.max())
        gain = 65535 / (high - low) if high > low else 0.0
        small = ((small.astype(np.float64) - low) * gain).round().astype("<u2")
    record = detail["images"][number]
    header: dict[str, Any] = {
        "width": small.shape[1],
        "height": small.shape[0],
        "channels": 1 if small.ndim == 2 else 3,
        "bits": 8 * small.dtype.itemsize,
        "values": [low, high],
        "window": _own_window(pixels, shown),
        "unit": _unit(source),
        "size": list(pixels.shape[:2]),
    }
    heat = np.zeros((0, 0), np.float32)
    scored = scored_of(record, source, _maps(maps)) if record.get("map") is not None else None
    if isinstance(scored, Scored):
        calibration = model.calibration
        height, width = scored.source_size
        factor = min(1.0, _HEAT / max(height, width))
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        heat = map_to_source(scored.input_map, size, model.preprocessing)
        header["map"] = {
            "width": heat.shape[1],
            "height": heat.shape[0],
            "scale": list(calibration.map_scale),
            "threshold": calibration.map_threshold,
            "unit": unit_of(scored.statistics),
            "false_alarm_rate": calibration.false_alarm_rate,
        }
        header["why"] = explain(record, heat, calibration)
    text = json.dumps(header).encode()
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(4, "little") + text)
        for part in (np.ascontiguousarray(small), heat.astype("<f4")):
            file.write(bytes(-file.tell() % 8))
            file.write(part.tobytes())


def _scored(detail: Detail, number: int, folder: Path, maps: Path) -> Scored:
    source = source_of(detail, number, folder)
    found = scored_of(detail["images"][number], source, _maps(maps))
    if isinstance(found, ImageError):
        raise Nothing(f"it has no map: {found.reason}")
    return found


def _maps(path: Path) -> NDArray[np.float32]:
    maps: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return maps


def _window(model: DescribedScorer, source: Source) -> tuple[float, float] | None:
    """As the overlay shows it; None where the series' own is not known."""
    intensity = model.preprocessing.intensity
    if intensity.scope == "series" and source.series is not None:
        try:
            return source.series.window(_unknown)
        except LookupError:
            return None
    return (intensity.low, intensity.high)


def _unknown(_: object) -> tuple[float, float]:
    raise LookupError


def _own_window(pixels: NDArray[Any], window: tuple[float, float] | None) -> tuple[float, float]:
    if window is not None:
        return window
    if pixels.dtype == np.uint8:
        return (0.0, 255.0)
    low, high = np.nanpercentile(pixels, [0.5, 99.5])
    return (float(low), float(high))


def _unit(source: Source) -> str:
    values = read_info(source).values
    return "HU" if values == "HU" else "grey value"


def _reduced(pixels: NDArray[Any]) -> NDArray[Any]:
    """No side longer than the viewer shows; 8 bits stay 8 bits, all else becomes float."""
    longest = max(pixels.shape[:2])
    if longest <= _VIEW:
        return pixels
    size = tuple(max(1, round(side * _VIEW / longest)) for side in pixels.shape[1::-1])
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    planes = pixels.astype(np.float32).reshape(*pixels.shape[:2], -1)
    done = [
        np.asarray(Image.fromarray(planes[..., c]).resize(size, Image.Resampling.BOX))
        for c in range(planes.shape[2])
    ]
    return done[0] if pixels.ndim == 2 else np.stack(done, axis=2)
