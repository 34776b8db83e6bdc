"""How the software's own detector stands beside the others, on one table."""

from __future__ import annotations

from collections.abc import Sequence

from scrd.bench.found import Found, cell, find
from scrd.bench.results import Line
from scrd.bench.suite import Row, Suite
from scrd.bench.words import DASH, cell_text, markdown, percent

OURS = "ours"
"""Label of this software's own detector in a comparison."""

_MEASURES = {"auroc": "AUROC", "pointing_hit_rate": "pointing", "pixel_ap": "pixel AP"}


def standing(suite: Suite, lines: Sequence[Line]) -> str:
    """Our own detector and, on each set, the best of the other rows by each measure.

    Args:
        suite: a comparison of methods.
        lines: all results.

    Returns:
        A section, Markdown, of the largest budget at which there is a set with both; empty where
        there is none.
    """
    for row in suite.rows:
        for found in (find(suite, b, lines) for b in suite.budgets) if row.label == OURS else ():
            body = [_of_set(found, row, data) for data in found.sets]
            if body := [cells for cells in body if cells]:
                return _section(found, row, body)
    return ""


def _of_set(found: Found, ours: Row, data: str) -> list[str]:
    """The cells of one set; none where either side is missing."""
    others = [row for row in found.distinct_rows() if row is not ours]
    count = sum((row.label, data) in found.runs for row in others)
    if count == 0 or (ours.label, data) not in found.runs:
        return []
    cells = []
    for measure in _MEASURES:
        several = ((row.label, cell(found, row, data, measure)) for row in found.rows())
        known = [(c.mean, label) for label, c in several if c and label != ours.label]
        best = f"{percent(max(known)[0])} ({max(known)[1]})" if known else DASH
        cells += [cell_text(cell(found, ours, data, measure)), best]
    return [data, *cells, str(count)]


def _section(found: Found, ours: Row, body: Sequence[Sequence[str]]) -> str:
    header = [text for name in _MEASURES.values() for text in (name, "best other")]
    seeds = {len(runs) for (label, _), runs in found.runs.items() if label == ours.label}
    settings = found.suite.run(ours, found.budget, found.sets[0], 0).config
    return (
        f"## `{OURS}` beside the others\n\n"
        f"`scrd` as it comes and, of the other rows of “{found.suite.title}”, the best by each "
        f"measure, whichever that is. Budget "
        f"`{found.budget}`: {settings.image_size} px, {settings.iterations:,} iterations, teacher "
        f"{settings.teacher}, {min(seeds)} seed{'s' * (min(seeds) > 1)}. In %.\n\n"
        f"{markdown(['', *header, 'others'], body)}"
    )
