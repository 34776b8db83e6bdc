"""How a watch is, for people at a terminal."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from scrd.archive.overview import Overview
    from scrd.archive.status import Status
    from scrd.monitor.rates import Expected, Rate

_STYLES = {"well": None, "dead": "bold red", "stuck": "bold yellow"}
_REASONS = 5


def print_status(watch: Overview, days: int, console: Console) -> None:
    """Print a screen of plain words.

    Args:
        watch: how it is.
        days: that are counted.
        console: where to.
    """

    def line(name: str, text: str, style: str | None = None) -> None:
        console.print(f"{name:<9} {text}", style=style, markup=False)

    one, now = watch.status, time.time()
    console.print(f"{one.archive} ({one.state})", style="bold", markup=False)
    line("health", f"{one.health.upper()}: {one.told}", _STYLES[one.health])
    if one.version is not None:
        assert one.started is not None and one.model is not None
        place = f" in {one.model_folder}" if one.model_folder else ""
        begun = f"process {one.pid} since {_when(one.started, now)}"
        ended = "" if one.ended is None else f", ended {_when(one.ended, now)}"
        line("process", f"scrd {one.version}, {begun}{ended}; model {one.model[:16]}{place}")
    contact = "never" if one.contacted is None else _when(one.contacted, now)
    line("contact", f"{contact}{'; since then ' * bool(one.trouble)}{one.trouble}")
    line("today" if days == 1 else f"{days} days", _did(one))
    for outcome, reasons in (("refused", one.refused), ("failed", one.failed)):
        for reason, times in list(reasons.items())[:_REASONS]:
            line("", f"{outcome} {times}: {reason}")
        if len(reasons) > _REASONS:
            line("", f"{outcome} for {len(reasons) - _REASONS} other reasons, see --json")
    line("waiting", _waits(one, now))
    for at, reason in one.retried[:_REASONS]:
        line("", f"tried next {_when(at, now)}: {reason}")
    if one.median_seconds is not None:
        line(
            "speed",
            f"a study {one.median_seconds:.1f} s (median), {one.p95_seconds:.1f} s (95 %)",
        )
    if one.free_bytes is not None and one.last is not None:
        free = f"{one.free_bytes / 1e9:.1f} GB"
        line("disk", f"{free} free after the last study, {_when(one.last, now)}")
    if watch.flags is not None:
        line("flags", _flags(*watch.flags))
    line("drift", watch.drift.line, "bold red" if watch.drift.alarms else None)
    console.print()


def _did(one: Status) -> str:
    refused, failed = sum(one.refused.values()), sum(one.failed.values())
    return (
        f"{one.processed} studies: {one.done} scored, {one.flagged} of them flagged; "
        f"{refused} refused, {failed} failed"
    )


def _waits(one: Status, now: float) -> str:
    said = f"{one.waiting} studies"
    if one.oldest is not None:
        said += f", the oldest for {_long(now - one.oldest)}"
    if one.in_hand is not None and one.begun is not None:
        said += f"; {one.in_hand} in hand for {_long(now - one.begun)}"
    if one.arriving:
        said += f"; {one.arriving} more are arriving"
    return said


def _flags(found: Rate, expected: Expected) -> str:
    return (
        f"{100 * found.rate:.1f} % of the studies (95 % limits {_limits(found.limits)}); "
        f"calibrated, of normal ones, {100 * expected.rate:.1f} % ({_limits(expected.limits)}): "
        f"{expected.compared(found)} the limits"
    )


def _limits(limits: tuple[float, float]) -> str:
    return f"{100 * limits[0]:.1f} to {100 * limits[1]:.1f} %"


def _when(moment: float, now: float) -> str:
    then = datetime.fromtimestamp(moment)
    ago = now - moment
    told = f"{_long(ago)} ago" if ago >= 0 else f"in {_long(-ago)}"
    return f"{then:%Y-%m-%d %H:%M:%S} ({told})"


def _long(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
