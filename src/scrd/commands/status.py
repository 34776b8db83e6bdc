"""`scrd status`. Heavy modules are imported inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from scrd.system.console import DEAD, DRIFTED, STUCK, out, refusing


def status(
    states: Annotated[
        list[Path], typer.Argument(help="State files of scrd watch, or folders that hold some.")
    ],
    days: Annotated[
        int, typer.Option(min=1, max=90, help="Days that are counted, today included.")
    ] = 1,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder to see drift with; by default the one that watches."),
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="See drift against these, as for scrd monitor.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say how a watch is: what it did today, what waits, whether it lives, whether images drift.

    Exit code 5 where one does not live, else 6 where one is stuck, else 4 after an alarm of drift.
    """
    from scrd.archive.overview import Overview, begin_of, drift_of
    from scrd.archive.status import find_states, read_status
    from scrd.commands.status_words import print_status

    found = []
    with refusing():
        for path in find_states(states):
            one = read_status(path, begin_of(days))
            found.append(Overview(one, drift_of(one, model, reference or [])))
    if as_json:
        told = [watch.to_dict() for watch in found]
        out.print(json.dumps(told, indent=1, allow_nan=False))
    else:
        for watch in found:
            print_status(watch, days, out)
    health = {watch.status.health for watch in found}
    if "dead" in health:
        raise typer.Exit(DEAD)
    if "stuck" in health:
        raise typer.Exit(STUCK)
    if any(watch.drift.alarms for watch in found):
        raise typer.Exit(DRIFTED)
