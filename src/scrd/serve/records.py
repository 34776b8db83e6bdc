"""Results as plain JSON, and back to what the rest of the package works on.

One result is one picture, or one series of a study: a row of the list. It says of each image what
came of it, and of the series and of the study what they add up to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrd.data.source import Series, Source
from scrd.dicom.uids import tag
from scrd.errors import ImageError
from scrd.scoring.scorer import Scored
from scrd.scoring.verdicts import SeriesResult, StudyResult, Verdict
from scrd.storage.plain import to_plain

Result = Scored | ImageError


def image_record(result: Result) -> dict[str, Any]:
    """What came of one image, without its map."""
    if isinstance(result, ImageError):
        return {"refusal": result.reason}
    return {
        "score": result.score,
        "p_value": result.p_value,
        "flag": result.flag,
        "statistics": dict(result.statistics),
        "scale_weights": list(result.scale_weights),
        "size": list(result.source_size),
        "doubts": list(result.doubts),
        # for whoever watches the stream for drift
        "covariates": None if result.covariates is None else to_plain(result.covariates),
    }


def verdict_record(verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict as JSON."""
    return None if verdict is None else dict(vars(verdict))


def picture_row(source: Source, result: Result, file: int, place: int) -> dict[str, Any]:
    """The row of a picture.

    Args:
        source: the picture.
        result: what came of it.
        file: its number in the job.
        place: of its map in the job's maps.
    """
    record = image_record(result) | {"file": file, "frame": source.frame, "map": place}
    return {
        "kind": "picture",
        "score": record.get("score"),
        "p_value": record.get("p_value"),
        "flag": record.get("flag"),
        "refusal": record.get("refusal"),
        "doubts": len(record.get("doubts", ())),
        "images": 1,
        "detail": {"images": [record], "series": None, "study": None},
    }


def series_row(
    study: StudyResult,
    one: SeriesResult,
    files: Mapping[Path, int],
    place: int,
    modality: str | None,
    window: tuple[float, float] | None,
) -> dict[str, Any]:
    """The row of a series.

    Args:
        study: that it belongs to.
        one: the series.
        files: number in the job of each file.
        place: of the first map of the series.
        modality: as its first file gives it.
        window: grey values shown as black and white, where the model measures them by series.
    """
    series, verdict = one.series, one.verdict
    images = [
        image_record(result) | {"file": files[path], "frame": frame, "map": place + i}
        for i, ((path, frame), result) in enumerate(zip(series.places, one.images, strict=True))
    ]
    refusals = [image["refusal"] for image in images if "refusal" in image]
    return {
        "kind": modality or series.format,
        "score": None if verdict is None else verdict.score,
        "p_value": None if verdict is None else verdict.p_value,
        "flag": None if verdict is None else verdict.flag,
        "refusal": refusals[0] if verdict is None else None,
        "doubts": len({d for image in images for d in image.get("doubts", ())})
        + len(series.problems),
        "images": len(images),
        "detail": {
            "images": images,
            "series": {
                "uid": series.uid if series.format == "DICOM" else None,
                "tag": tag(series.uid),
                "patient": series.patient,
                "affine": None if series.affine is None else series.affine.tolist(),
                "problems": list(series.problems),
                "format": series.format,
                "window": None if window is None else list(window),
                "verdict": verdict_record(verdict),
            },
            "study": {
                "uid": study.uid if series.format == "DICOM" else None,
                "tag": tag(study.uid),
                "verdict": verdict_record(study.verdict),
            },
        },
    }


def failure_row(failure: ImageError, file: int) -> dict[str, Any]:
    """The row of a file that holds an image whose header cannot be read."""
    record = {"refusal": failure.reason, "file": file, "frame": None, "map": None}
    return {
        "kind": "file",
        "score": None,
        "p_value": None,
        "flag": None,
        "refusal": failure.reason,
        "doubts": 0,
        "images": 1,
        "detail": {"images": [record], "series": None, "study": None},
    }


def source_of(detail: Mapping[str, Any], number: int, folder: Path) -> Source:
    """An image of a result.

    Args:
        detail: of its row.
        number: of the image in it.
        folder: where the job's files lie.
    """
    image = detail["images"][number]
    series = None if detail["series"] is None else series_of(detail, folder)
    return Source(folder / str(image["file"]), image["frame"], series)


def series_of(detail: Mapping[str, Any], folder: Path) -> Series:
    """The series of a result; what was measured over all of it need not be measured again."""
    known = detail["series"]
    series = Series(
        uid=known["uid"] or str(folder),
        study=detail["study"]["uid"] or str(folder),
        patient=known["patient"],
        places=tuple((folder / str(i["file"]), i["frame"]) for i in detail["images"]),
        affine=None if known["affine"] is None else np.array(known["affine"]),
        problems=tuple(known["problems"]),
        format=known["format"],
    )
    if known["window"] is not None:
        low, high = known["window"]
        series.window(lambda _: (low, high))
    return series


def scored_of(
    image: Mapping[str, Any], source: Source, maps: NDArray[np.float32]
) -> Scored | ImageError:
    """What came of one image.

    Args:
        image: its record.
        source: the image.
        maps: (N, S, S), of the job.
    """
    if "refusal" in image:
        return ImageError(source.path, image["refusal"])
    return Scored(
        source=source,
        score=image["score"],
        p_value=image["p_value"],
        flag=image["flag"],
        statistics=image["statistics"],
        scale_weights=tuple(image["scale_weights"]),
        input_map=np.array(maps[image["map"]]),
        source_size=(image["size"][0], image["size"][1]),
        doubts=tuple(image["doubts"]),
    )


def series_result(
    detail: Mapping[str, Any], folder: Path, maps: NDArray[np.float32]
) -> SeriesResult:
    """A series with all its images."""
    series = series_of(detail, folder)
    images = tuple(
        scored_of(image, source, maps)
        for image, source in zip(detail["images"], series.sources, strict=True)
    )
    return SeriesResult(series, images, _verdict(detail["series"]["verdict"]))


def study_result(
    details: Sequence[Mapping[str, Any]], folder: Path, maps: NDArray[np.float32]
) -> StudyResult:
    """A study.

    Args:
        details: of its series, at least one.
        folder: where the job's files lie.
        maps: of the job.
    """
    study = details[0]["study"]
    series = tuple(series_result(detail, folder, maps) for detail in details)
    return StudyResult(study["uid"] or str(folder), series, _verdict(study["verdict"]))


def _verdict(record: Mapping[str, Any] | None) -> Verdict | None:
    return None if record is None else Verdict(**record)
