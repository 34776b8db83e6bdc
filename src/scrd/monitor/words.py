"""What is found in a stream, for people at a terminal."""

from __future__ import annotations

import math

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scrd.monitor.drift import Drift
from scrd.monitor.martingale import LEVELS, first_at
from scrd.monitor.rates import WINDOW, Limits

_TOGETHER = "all together"
_HUGE = 1e6


def print_drift(drift: Drift, console: Console) -> None:
    """Print what is found: counts, flags, wealth, covariates, and the alarms last."""

    def show(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        table = Table(title=title, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(column, no_wrap=i == 0)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)

    console.print(_counts(drift), markup=False)
    console.print(_flags(drift), markup=False)
    show("Wealth of a gambler who bets on drift, 1 at the start", *_wealth(drift))
    if rows := _beyond(drift):
        show(
            "Beyond training",
            ("what", "images", "found", "training"),
            rows,
        )
    for note in drift.notes:
        console.print(f"note: {note}", markup=False)
    for line in alarm_lines(drift):
        console.print(line, markup=False, style="bold red" if drift.alarms else None)


def _counts(drift: Drift) -> str:
    whose = "of the reference" if drift.accepted else "that calibrate the model"
    said = f"{drift.images} images with a score, {drift.unscored} without"
    if len(drift.counted) < drift.images:
        said += f"; {len(drift.counted)} count, one a study"
    return f"{said}; compared with {len(drift.reference)} images {whose}, one a patient or study"


def _flags(drift: Drift) -> str:
    found, expected = drift.flagged, drift.expected
    off = [w for w in drift.windows if expected.compared(w) != "within"]
    return (
        f"flagged: {found.flagged} of {found.images}, {_percent(found.rate)} "
        f"({_limits(found.limits)}); expected {_percent(expected.rate)} "
        f"({_limits(expected.limits)}): {expected.compared(found)} the limits; "
        f"{len(off)} of {len(drift.windows)} windows of {WINDOW} images outside of them"
    )


def _wealth(drift: Drift) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = (
        *("what", "now", "highest", *(f"{level} at image" for level in LEVELS)),
        *("median", "reference"),
    )
    rows = []
    for name, logs in ((_TOGETHER, drift.log_wealth), *drift.log_wealths.items()):
        places = [first_at(logs, level) for level in LEVELS]
        medians = (
            ("", "")
            if name == _TOGETHER
            else tuple(
                f"{np.median(sample.values[name]):.4g}"
                for sample in (drift.counted, drift.reference)
            )
        )
        rows.append(
            (
                name,
                _number(float(logs[-1])),
                _number(float(logs.max())),
                *("-" if place is None else str(place + 1) for place in places),
                *medians,
            )
        )
    return columns, rows


def _beyond(drift: Drift) -> list[tuple[str, ...]]:
    return [
        (one.name, f"{one.beyond} of {one.images}", one.found, one.trained)
        for one in drift.beyond
        if one.beyond
    ]


def in_a_line(drift: Drift) -> str:
    """Alarm or none, what drives it, and the wealth."""
    now, highest = (_number(float(logs)) for logs in (drift.log_wealth[-1], drift.log_wealth.max()))
    said = f"wealth {now}, highest {highest}, {len(drift.counted)} images count, one a study"
    if not drift.alarms:
        return f"no alarm: {said}"
    last = drift.alarms[-1]
    return (
        f"ALARM: {last.driver} is {'higher' if last.higher else 'lower'} than in the reference, "
        f"first at {drift.alarms[0].path}; {said}"
    )


def alarm_lines(drift: Drift) -> list[str]:
    """A sentence an alarm, or one that says that there is none."""
    if not drift.alarms:
        return [f"no alarm: the wealth of all together stayed below {LEVELS[0]}"]
    return [
        f"ALARM: wealth {alarm.level} at image {alarm.at + 1}, {alarm.path}: {alarm.driver} is "
        f"{'higher' if alarm.higher else 'lower'} than in the reference; without drift this "
        f"happens in at most 1 of {alarm.level} streams"
        for alarm in drift.alarms
    ]


def _number(log: float) -> str:
    return f"1e{log / math.log(10):.0f}" if log > math.log(_HUGE) else f"{math.exp(log):.3g}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _limits(limits: Limits) -> str:
    return f"95 % limits {100 * limits[0]:.1f} to {_percent(limits[1])}"
