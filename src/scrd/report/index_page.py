"""``index.html``: what came of a run of scoring, for a browser without a network.

It is made without a template engine, which exported models do without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from scrd.report.case_list import RESEARCH, asset, case_list, policy
from scrd.report.cases import Cases
from scrd.scoring.calibration import Calibration
from scrd.scoring.promise import promised
from scrd.system.files import atomic
from scrd.system.version import __version__


@dataclass(frozen=True)
class Model:
    """What scored the images.

    Attributes:
        fingerprint: SHA-256 of the saved model; None before it is saved.
        calibration: what held-out normals said.
    """

    fingerprint: str | None
    calibration: Calibration


def write_index(path: Path, lists: Sequence[Cases], model: Model, tables: Sequence[str]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the HTML file.
        lists: see :func:`scrd.report.case_list.case_list`; that of the images among them.
        model: what scored them.
        tables: names of the tables beside it.

    Raises:
        OSError: the place takes no more; what was there before is left.
    """
    with (
        atomic(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        file.writelines(_page(lists, model, tables))


def _page(lists: Sequence[Cases], model: Model, tables: Sequence[str]) -> Iterator[str]:
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy())}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<title>scrd: results</title>\n<style>\n"
    )
    yield asset("cases.css")
    yield asset("index.css")
    yield '</style>\n</head>\n<body>\n<a class="skip" href="#cases">To the list</a>\n'
    yield (
        '<header class="top">\n<h1>scrd: results</h1>\n'
        f'<p class="research">{RESEARCH}</p>\n</header>\n<main>\n'
    )
    yield '<dl class="tiles">\n'
    for name, value in _facts(lists, model.calibration.calibrated):
        yield f'<div class="tile"><dt>{name}</dt><dd>{value}</dd></div>\n'
    yield "</dl>\n"
    yield f'<p class="promise">{_promise(model)}</p>\n'
    yield from case_list(lists, "Cases")
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in map(escape, tables))
    yield (
        "</main>\n<footer>\n"
        f"<p>The same as tables: {links}.</p>\n"
        "<p>A heat map shows where an image differs from the normal images that the model has "
        "seen. It does not name a disease, and an image without heat is not proof of health.</p>\n"
        f"<p>Model fingerprint <code>{escape(model.fingerprint or 'none: it was not saved')}"
        f"</code>, scrd {escape(__version__)}.</p>\n"
        "</footer>\n</body>\n</html>\n"
    )


def _facts(lists: Sequence[Cases], calibrated: bool) -> Iterator[tuple[str, str]]:
    """Name and figure of what the head counts; nothing is flagged without a calibration."""
    shown = [cases for cases in lists if cases.total]
    alone = len(shown) == 1
    for cases in shown:
        name = {"image": "Images", "study": "Studies"}.get(cases.noun, "Series")
        flagged = f"{cases.counts['flagged']:,}"
        told = f" <small>{flagged} flagged</small>" * (calibrated and not alone)
        yield name, f"{cases.total:,}{told}"
        if calibrated and alone:
            yield "Flagged", flagged
    for cases in shown:
        if cases.noun == "image":
            yield f"{'W' if alone else 'Images w'}ithout a score", f"{cases.counts['refused']:,}"
            yield f"Doubtful{' images' * (not alone)}", f"{cases.doubted:,}"


def _promise(model: Model) -> str:
    """Who decided, and what that promises."""
    calibration = model.calibration
    name = f"Model <code>{escape((model.fingerprint or 'not saved')[:16])}</code>. "
    if calibration.silence:
        return f"{name}<strong>{escape(calibration.silence)}.</strong>"
    rate = calibration.false_alarm_rate
    words = promised(calibration.groups, rate, calibration.promise)
    return (
        f"{name}Flagged is what has a p-value of at most {rate:g}. The promise: {escape(words)}. "
        "It holds for images that come from where the calibration normals come from."
    )
