"""`scrd watch`. Heavy modules are imported inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrd.commands.common import (
    BatchSize,
    Device,
    Model,
    Threads,
    parse_kinds,
    report_silence,
)
from scrd.system.console import SKIPPED, out, refusing

if TYPE_CHECKING:
    from scrd.outputs.history import Found, Seen
    from scrd.outputs.score_folder import Summary
    from scrd.scoring.scorer import Scored


def watch(
    model: Model,
    orthanc: Annotated[str | None, typer.Option(help="Address of an Orthanc.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder that files arrive in.")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="With --folder: where results go.")
    ] = None,
    state: Annotated[
        Path, typer.Option(help="File that remembers what was done; one a watch.")
    ] = Path("scrd-watch.sqlite"),
    dicom_out: Annotated[
        str, typer.Option(help="DICOM objects to store, with commas: sr, seg, sc, fseg, pm.")
    ] = "sr,seg,sc",
    settle: Annotated[
        float, typer.Option(min=0, help="With --folder: seconds without change that end a study.")
    ] = 10.0,
    poll: Annotated[float, typer.Option(min=0, help="Seconds between two looks.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Do what is there and end.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what was given up.")
    ] = False,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Score every study that arrives in an Orthanc or a folder and store the results back."""
    import logging
    import sqlite3

    from scrd import __version__
    from scrd.archive.folder import Folder
    from scrd.archive.orthanc import Orthanc
    from scrd.archive.state import State
    from scrd.archive.watch import Results, standing, stopping
    from scrd.archive.watch import watch as watch_archive
    from scrd.data.series import list_sources
    from scrd.errors import ConfigError, ScrdError
    from scrd.export.loading import load_scorer
    from scrd.outputs.pictures import Outputs
    from scrd.outputs.score_folder import score_all

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    log = logging.getLogger("scrd.watch")

    def process(study: Path, _uid: str) -> Results:
        # of a watched folder these are links; results name what they lead to
        listing = list_sources(sorted(path.resolve() for path in study.iterdir()))
        results = study.parent / "results"
        seen: list[Seen] = []
        summary = score_all(
            detector,
            listing,
            results,
            Outputs(overlays=False, kinds=kinds),
            batch_size=batch_size,
            also=lambda image: seen.append(as_seen(image)),
        )
        for reason in summary.unwritten:
            log.warning("not written: %s", reason)
        if summary.disk_error is not None:  # the study stays in the queue
            raise summary.disk_error
        if summary.images == len(summary.failures):
            why = summary.failures[0].reason if summary.failures else "it holds none"
            refusal = f"none of {summary.images} images could be scored: {why}"
            return Results(refusal=refusal, found=as_found(summary))
        refusal = ""
        if kinds and summary.unwritten and not summary.objects:
            refusal = f"no DICOM object could be written: {summary.unwritten[0]}"
        shown = [*results.glob("*.csv"), *results.glob("index.html")] if folder is not None else []
        return Results(
            (*summary.objects, *sorted(shown)),
            in_words(summary, len(listing.copies)),
            bool(summary.flagged_studies),
            refusal,
            as_found(summary, seen),
        )

    with refusing():
        kinds = parse_kinds(dicom_out)
        if (orthanc is None) == (folder is None):
            raise ConfigError("give either --orthanc or --folder")
        if (folder is None) != (out_folder is None):
            raise ConfigError("--folder needs --out, and --orthanc takes none")
        if orthanc is not None and not kinds:
            raise ConfigError("--dicom-out is empty: there would be nothing to store")
        archive: Orthanc | Folder
        if orthanc is not None:
            archive = Orthanc(orthanc)
        else:
            assert folder is not None and out_folder is not None
            _check_folders(folder, out_folder)
            archive = Folder(folder, out_folder, settle_seconds=settle)
        detector = load_scorer(model, device)
        detector.calibration.require(f"{model}: a watch decides by p-values")
        report_silence(detector.calibration)
        assert detector.fingerprint is not None
        try:
            with (
                State(state, name=archive.name, model=detector.fingerprint) as known,
                stopping() as stop,
            ):
                log.info(
                    "scrd %s watches %s; model %s, fingerprint %s; DICOM objects %s; state %s",
                    __version__,
                    archive.name,
                    model.resolve().name,
                    detector.fingerprint,
                    ", ".join(kinds) or "none",
                    state,
                )
                log.info("so far %s", standing(known))
                if known.of_other_models:
                    log.warning(
                        "%d studies hold results of another model; each keeps them until it is "
                        "scored again",
                        known.of_other_models,
                    )
                if retry_failed:
                    known.retry_failed()
                outcomes = watch_archive(
                    archive,
                    process,
                    known,
                    poll_seconds=poll,
                    once=once,
                    stop=stop,
                    model_folder=model,
                )
                counts = known.counts
        except OSError as e:
            raise ScrdError(
                f"stopped: {e.strerror or type(e).__name__}; the study in hand waits in {state}"
            ) from e
        except sqlite3.Error as e:
            raise ScrdError(f"{state}: cannot be read or written any more ({e})") from e
    out.print(", ".join(f"{n} {status}" for status, n in counts.items()) or "no study")
    if once and outcomes.keys() & {"refused", "failed", "retry"}:
        raise typer.Exit(SKIPPED)


def in_words(summary: Summary, copies: int) -> str:
    """What was found in a study, for the log: nothing of a patient, no path, no UID."""
    said = []
    for verdict in summary.verdicts:
        if verdict is None:
            said.append("a study without verdict")
        else:
            said.append(
                f"{'flagged' if verdict.flag else 'not flagged'}, score {verdict.score:.3g}, "
                f"p {verdict.p_value:.3g}, {verdict.images} images"
            )
    if len(said) > 1:
        said.insert(0, f"{len(said)} patients or studies under its UID, kept apart")
    if summary.failures:
        reasons = Counter(failure.reason for failure in summary.failures).most_common(3)
        told = "; ".join(f"{reason} ({times})" for reason, times in reasons)
        said.append(f"{len(summary.failures)} images without a score: {told}")
    if summary.doubted:
        said.append(f"{summary.doubted} doubtful")
    if copies:
        said.append(f"{copies} copies left out")
    if summary.unwritten:
        said.append(f"{len(summary.unwritten)} objects not written: {summary.unwritten[0]}")
    return "; ".join(said)


def as_seen(image: Scored) -> Seen:
    """What is kept of an image."""
    from scrd.dicom.uids import tag
    from scrd.outputs.history import Seen

    series = image.source.series
    study = tag(series.study) if series else ""
    return Seen(study, float(image.score), bool(image.flag), image.covariates)


def as_found(summary: Summary, seen: Sequence[Seen] = ()) -> Found:
    """What is kept of a study."""
    from scrd.outputs.history import Found

    found = [(v.p_value, v.score) for v in summary.verdicts if v and v.p_value is not None]
    p_value, score = min(found, key=lambda pair: pair[0], default=(None, None))
    return Found(summary.images, len(summary.failures), score, p_value, seen)


def _check_folders(folder: Path, out_folder: Path) -> None:
    """Refuse at the start what would fail at the first study."""
    import tempfile

    from scrd.errors import ConfigError

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder, so there is nothing to watch")
    try:
        out_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_folder):
            pass
    except OSError as e:
        cause = e.strerror or type(e).__name__
        raise ConfigError(f"{out_folder}: results cannot be written there: {cause}") from None
