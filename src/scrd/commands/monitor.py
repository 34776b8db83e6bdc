"""`scrd monitor`. Heavy modules are imported inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from scrd.commands.common import Model
from scrd.system.console import DRIFTED, out, refusing


def monitor(
    model: Model,
    scores: Annotated[
        list[Path],
        typer.Argument(
            help="Tables scores.csv, folders of scrd score, or state files of scrd watch, in "
            "order of arrival."
        ),
    ],
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="The same, to compare with instead of the calibration normals."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for monitor.json and monitor.svg.")
    ] = None,
) -> None:
    """Say whether the scored images still look like those that calibrated the model.

    Exit code 4 when they do not.
    """
    from scrd.monitor.drift import find_drift
    from scrd.monitor.figure import drift_figure
    from scrd.monitor.stream import read_stream
    from scrd.monitor.words import print_drift
    from scrd.storage.known import read_known
    from scrd.system.files import try_folder, write_atomically

    with refusing():
        if out_folder is not None:
            try_folder(out_folder)
        known = read_known(model)
        stream = read_stream(scores, known.fingerprint)
        accepted = None
        if reference:
            accepted = read_stream(reference, known.fingerprint, apart_from=stream.tables)
        drift = find_drift(stream, known, accepted)
        if out_folder is not None:
            found = json.dumps(drift.to_dict(), indent=1, allow_nan=False)
            write_atomically(out_folder / "monitor.json", found)
            write_atomically(out_folder / "monitor.svg", drift_figure(drift))
    print_drift(drift, out)
    if out_folder is not None:
        out.print(f"everything is in {out_folder / 'monitor.json'}")
    if drift.alarms:
        raise typer.Exit(DRIFTED)
