"""`scrd watch`. Heavy modules are imported inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scrd.commands.common import (
    BatchSize,
    Device,
    Model,
    load_scorer,
    parse_kinds,
)
from scrd.system.console import out, refusing


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
) -> None:
    """Score every study that arrives in an Orthanc or a folder and store the results back."""
    import logging

    from scrd.archive.folder import Folder
    from scrd.archive.orthanc import Orthanc
    from scrd.archive.state import State
    from scrd.archive.watch import stopping
    from scrd.archive.watch import watch as watch_archive
    from scrd.data.series import list_sources
    from scrd.errors import ConfigError, ScrdError
    from scrd.report.outputs import score_all
    from scrd.report.pictures import Outputs

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    def process(study: Path, _uid: str) -> list[Path]:
        # of a watched folder these are links; results name what they lead to
        listing = list_sources(sorted(path.resolve() for path in study.iterdir()))
        results = study.parent / "results"
        summary = score_all(
            detector, listing, results, Outputs(overlays=False, kinds=kinds), batch_size=batch_size
        )
        for reason in summary.unwritten:
            logging.getLogger("scrd.watch").warning("not written: %s", reason)
        if summary.disk_error is not None:  # the study stays in the queue
            raise summary.disk_error
        if summary.images == len(summary.failures):
            why = summary.failures[0].reason if summary.failures else "it holds none"
            raise ScrdError(f"none of {summary.images} images could be scored: {why}")
        tables = sorted(results.glob("*.csv")) if folder is not None else []
        return [*summary.objects, *tables]

    with refusing():
        kinds = parse_kinds(dicom_out)
        if (orthanc is None) == (folder is None):
            raise ConfigError("give either --orthanc or --folder")
        if (folder is None) != (out_folder is None):
            raise ConfigError("--folder needs --out, and --orthanc takes none")
        if orthanc is not None and not kinds:
            raise ConfigError("--dicom-out is empty: there would be nothing to store")
        detector = load_scorer(model, device)
        archive: Orthanc | Folder
        if orthanc is not None:
            archive = Orthanc(orthanc)
        else:
            assert folder is not None and out_folder is not None
            archive = Folder(folder, out_folder, settle_seconds=settle)
        assert detector.fingerprint is not None
        with (
            State(state, name=archive.name, model=detector.fingerprint) as known,
            stopping() as stop,
        ):
            if retry_failed:
                known.retry_failed()
            watch_archive(archive, process, known, poll_seconds=poll, once=once, stop=stop)
            counts = known.counts
    out.print(", ".join(f"{n} {status}" for status, n in counts.items()) or "no study")
