"""The folder that `scrd eval` leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scrd.detector import Detector
from scrd.evaluation.test_set import Evaluation
from scrd.outputs.index import image_row
from scrd.outputs.names import output_names
from scrd.outputs.pictures import why, write_overlay
from scrd.outputs.result_folder import ResultFolder
from scrd.outputs.score_folder import Result, write_scores
from scrd.outputs.tables import Table
from scrd.report.cases import Cases
from scrd.report.figures import (
    HISTOGRAM_CAPTION,
    ROC_CAPTION,
    SCALES_CAPTION,
    TRAINING_CAPTION,
    histogram_figure,
    roc_figure,
    training_curve,
)
from scrd.report.html import Case, Figure, Gallery, write_report
from scrd.report.overlay import draw
from scrd.system.files import write_atomically
from scrd.system.progress import counting

_GALLERY_CASES = 6
_GALLERY_SIDE = 1000


def write_evaluation(
    folder: Path,
    detector: Detector,
    evaluation: Evaluation,
    *,
    notes: Sequence[str] = (),
    overlays: bool = False,
) -> ResultFolder:
    """Write ``metrics.json``, ``scores.csv``, figures and ``report.html`` of an evaluation.

    Args:
        folder: where to write.
        detector: what scored the images.
        evaluation: what came of it.
        notes: what a reader must know, beside what is found here.
        overlays: draw a heat map of every image too, showing progress on standard error.

    Returns:
        The folder, which knows what could not be drawn.

    Raises:
        PlaceError: the folder holds results that no list names.
        OSError: the folder takes no more; what was written before is kept.
    """
    run = ResultFolder(folder)
    run.start()
    metrics = evaluation.metrics
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False))
    names = [r.name for r in evaluation.records] + [r.name for r in evaluation.failed]
    unread = evaluation.failures[: len(evaluation.failed)]
    results: list[Result] = [*evaluation.scored, *unread]
    write_scores(folder / "scores.csv", names, results, detector.calibration.silence)
    with Table(folder / "marks.csv", ("path", "reason", "used")) as marks:
        for failure in evaluation.failures[len(evaluation.failed) :]:
            marks.add(failure.path, failure.reason, 0)
        for doubt in evaluation.doubts:
            marks.add(doubt.path, doubt.reason, 1)
    scores = [s.score for s in evaluation.scored]
    labels = [r.label for r in evaluation.records]
    threshold = metrics["threshold"]
    figures = {}
    if "auroc" in metrics:
        roc = roc_figure(scores, labels, interval=metrics["auroc_ci95"], threshold=threshold)
        figures["roc"] = Figure(ROC_CAPTION, roc)
    histogram = histogram_figure(scores, labels, threshold=threshold)
    figures["histogram"] = Figure(HISTOGRAM_CAPTION, histogram)
    if detector.log:
        curve = training_curve([asdict(e) for e in detector.log])
        scales = [SCALES_CAPTION] if detector.log[0].scale_weights else []
        figures["training"] = Figure(" ".join([TRAINING_CAPTION, *scales]), curve)
    for name, figure in figures.items():
        write_atomically(folder / f"{name}.svg", figure.svg)
    pictures = _overlays(detector, evaluation, run) if overlays else {}
    cases = Cases("image")
    for name, record, result in zip(
        names, [*evaluation.records, *evaluation.failed], results, strict=True
    ):
        cases.add(
            image_row(
                name,
                result,
                picture=pictures.get(name),
                abnormal=record.label == 1,
                kind=record.kind,
            )
        )
    write_report(
        folder / "report.html",
        title=f"Anomaly detection on {metrics['settings']['data']}",
        subtitle=(
            f"objective {detector.config.objective}, teacher {detector.config.teacher}, "
            f"{detector.config.image_size} px, {detector.config.iterations} iterations, "
            f"pooling {metrics['pooling']}"
        ),
        metrics=metrics,
        figures=list(figures.values()),
        galleries=_galleries(detector, evaluation, run.unwritten),
        notes=[*notes, *_warnings(evaluation, detector.calibration.silence)],
        settings=metrics["settings"],
        cases=cases,
    )
    return run


def _overlays(detector: Detector, evaluation: Evaluation, run: ResultFolder) -> dict[str, str]:
    """Draw the heat map of every image; the image's name → its path below the folder."""
    written = {}
    names = output_names([scored.source for scored in evaluation.scored])
    with counting("drawing heat maps", len(names), True) as advance:
        for done, (record, scored, name) in enumerate(
            zip(evaluation.records, evaluation.scored, names, strict=True), start=1
        ):
            inside = f"overlays/{name.as_posix()}.jpg"
            try:
                write_overlay(detector, scored, run.claim(run.folder / inside), name.name)
                written[record.name] = inside
            except Exception as e:  # one picture never costs the report
                run.unwritten.append(f"heat map of {record.name}: {why(e)}")
            advance(done)
    return written


def _warnings(evaluation: Evaluation, silence: str | None) -> list[str]:
    notes = []
    if evaluation.failed:
        notes.append(f"{len(evaluation.failed)} test images could not be read: see errors.csv.")
    unused = len(evaluation.failures) - len(evaluation.failed)
    if unused or evaluation.doubts:
        notes.append(
            f"{unused} masks or boxes were left out, and {len(evaluation.doubts)} are doubtful: "
            "see marks.csv."
        )
    if evaluation.metrics["threshold"] is None:
        why = f": {silence}" if silence else ""
        notes.append(f"There is no threshold, and nothing is ever flagged{why}.")
    if doubtful := evaluation.metrics["n_doubted"]:
        notes.append(f"{doubtful} test images are doubtful: see warnings.csv.")
    confounds = evaluation.metrics.get("confounds", {})
    name, value = max(confounds.items(), key=lambda c: abs(c[1] - 0.5), default=("", 0.5))
    separation = max(value, 1 - value)
    if separation >= 0.7:
        notes.append(
            f"One plain number, {name}, already separates the classes of this test set with an "
            f"AUROC of {separation:.2f}: read the detector's figure against it."
        )
    return notes


def _galleries(detector: Detector, evaluation: Evaluation, unwritten: list[str]) -> list[Gallery]:
    """The cases that teach most: found, missed, falsely flagged, and quiet normals."""
    ranked = sorted(
        zip(evaluation.records, evaluation.scored, strict=True), key=lambda pair: pair[1].score
    )
    abnormal = [pair for pair in ranked if pair[0].label == 1]
    normal = [pair for pair in ranked if pair[0].label == 0]
    chosen = (
        ("Abnormal, highest scores", "What the detector finds most conspicuous.", abnormal[::-1]),
        ("Abnormal, lowest scores", "The misses: abnormal, yet most like normals.", abnormal),
        ("Normal, highest scores", "The false alarms, or the nearest to them.", normal[::-1]),
        ("Normal, lowest scores", "What the detector takes for most normal.", normal),
    )
    galleries = []
    for title, explanation, pairs in chosen:
        cases = []
        for record, scored in pairs[:_GALLERY_CASES]:
            try:
                picture = draw(detector, scored, record.name)
            except Exception as e:  # one picture never costs the report
                unwritten.append(f"picture of {record.name} in the report: {why(e)}")
                continue
            picture.thumbnail((_GALLERY_SIDE, _GALLERY_SIDE))
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=85)
            cases.append(
                Case(
                    record.name,
                    record.kind,
                    record.label,
                    scored.score,
                    scored.p_value,
                    scored.flag,
                    file.getvalue(),
                )
            )
        if cases:
            galleries.append(Gallery(title, explanation, cases))
    return galleries
