"""`scrd status`. Heavy modules are imported inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrd.system.console import DEAD, DRIFTED, STUCK, out, refusing

if TYPE_CHECKING:
    from scrd.archive.status import Status
    from scrd.monitor.drift import Drift
    from scrd.monitor.rates import Expected, Rate


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
    from datetime import datetime, timedelta

    from scrd.archive.status import find_states, read_status
    from scrd.commands.status_words import print_status

    midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    since = (midnight - timedelta(days=days - 1)).timestamp()
    found = []
    with refusing():
        for path in find_states(states):
            one = read_status(path, since)
            drift, note = _drift(one, model, reference or [])
            rate = _rates(one, drift)
            found.append((one, drift, rate, note))
    if as_json:
        told = [
            {**one.to_dict(), **_of_drift(drift, rate, note)} for one, drift, rate, note in found
        ]
        out.print(json.dumps(told, indent=1, allow_nan=False))
    else:
        for one, drift, rate, note in found:
            print_status(one, drift, rate, note, days, out)
    health = {one.health for one, *_ in found}
    if "dead" in health:
        raise typer.Exit(DEAD)
    if "stuck" in health:
        raise typer.Exit(STUCK)
    if any(drift and drift.alarms for _, drift, *_ in found):
        raise typer.Exit(DRIFTED)


def _drift(one: Status, model: Path | None, reference: list[Path]) -> tuple[Drift | None, str]:
    """What `scrd monitor` finds, or why there is nothing.

    Raises:
        ScrdError: the model or reference that was asked for cannot be used.
    """
    from scrd.errors import ScrdError
    from scrd.monitor.drift import find_drift
    from scrd.monitor.stream import read_stream
    from scrd.outputs.history_file import models, reading
    from scrd.storage.known import read_known

    asked = model is not None or bool(reference)
    folder = model or (Path(one.model_folder) if one.model_folder else None)
    if folder is None:
        return None, "it is not known which model watches; give --model"
    try:
        known = read_known(folder)
        with reading(one.state) as db:
            scored = models(db)
        if not scored:
            return None, "no study was scored yet"
        if not asked and known.fingerprint != one.model:
            return None, f"{folder}: holds another model than the one that watches"
        stream = read_stream([one.state], known.fingerprint)
        accepted = None
        if reference:
            accepted = read_stream(reference, known.fingerprint, apart_from=stream.tables)
        return find_drift(stream, known, accepted), ""
    except ScrdError as e:
        if asked:
            raise
        return None, str(e)


def _rates(one: Status, drift: Drift | None) -> tuple[Rate, Expected] | None:
    """Flags among the studies that were done, and what is to be expected of normal ones."""
    if drift is None or not one.done:
        return None
    from scrd.monitor.rates import flag_rate

    return flag_rate([i < one.flagged for i in range(one.done)]), drift.expected


def _of_drift(drift: Drift | None, rate: tuple[Rate, Expected] | None, note: str) -> dict[str, Any]:
    flags = None
    if rate is not None:
        found, expected = rate
        flags = {
            "rate": found.rate,
            "limits": list(found.limits),
            "expected": expected.rate,
            "expected_limits": list(expected.limits),
            "compared": expected.compared(found),
        }
    told = None
    if drift is not None:
        whole = drift.to_dict()
        told = {name: whole[name] for name in ("images", "counted", "wealth", "alarms", "notes")}
    return {"flag_rate": flags, "drift": told, "no_drift": note}
