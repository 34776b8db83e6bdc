"""How figures are written, the same on the console and on the page."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from scrd.bench.found import Cell

NAMES = {"auroc": "AUROC", "ap": "average precision", "f1": "F1", "acc": "accuracy"}
PLACES = {"pointing_hit_rate": "pointing", "pixel_ap": "pixel AP", "aupro": "AUPRO"}
"""Of localisation."""
DASH = "–"
"""Stands for a run that is missing."""


def percent(share: float) -> str:
    """A share in percent, to one digit."""
    return f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in points, to one digit, with its sign; nothing has no sign."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def cell_text(found: Cell | None, *, bold: bool = False) -> str:
    """Mean ± deviation over the seeds (low to high end of the interval), in percent."""
    if found is None:
        return DASH
    text = percent(found.mean)
    if not math.isnan(found.deviation):
        text += f" ± {percent(found.deviation)}"
    text = f"**{text}**" if bold else text
    if found.interval:
        text += f" ({percent(found.interval[0])} to {percent(found.interval[1])})"
    return text


def column_texts(cells: Sequence[Cell | None], barred: Collection[int] = ()) -> list[str]:
    """Texts of a column, the best in bold unless it stands alone or its place is barred."""
    rounded = [
        None if c is None or i in barred else round(100 * c.mean, 1) for i, c in enumerate(cells)
    ]
    known = [value for value in rounded if value is not None]
    best = max(known) if len(known) > 1 else None
    return [
        cell_text(c, bold=c is not None and value == best)
        for c, value in zip(cells, rounded, strict=True)
    ]


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table without the columns that hold nothing but dashes and blanks."""
    kept = [
        i
        for i in range(len(header))
        if i == 0 or any(row[i] not in (DASH, "") for row in body) or not body
    ]
    rows = [header, ["---"] * len(header), *body]
    return "".join(
        "| " + " | ".join(row[i].replace("|", r"\|") for i in kept) + " |\n" for row in rows
    )
