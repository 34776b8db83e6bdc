"""How the software's own detector stands beside the others, on one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from scrd.bench.found import Found, cell, find
from scrd.bench.results import Line
from scrd.bench.suite import OWN, Row, Suite
from scrd.bench.words import DASH, NAMES, PLACES, cell_text, markdown, percent
from scrd.model.scores import POOLINGS

OURS = "ours"
"""Label of this software's own detector in a comparison."""

_MEASURES = {name: {**NAMES, **PLACES}[name] for name in ("auroc", "pointing_hit_rate", "pixel_ap")}


def standing(suite: Suite, lines: Sequence[Line]) -> str:
    """Our own detector and, on each set, the best of the others by each measure.

    Of the others every way of pooling their maps counts that needs no labels, their own first;
    of ours the score that it gives.

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
    others = [row for row in found.distinct_rows() if row.label != ours.label]
    others = [row for row in others if (row.label, data) in found.runs]
    if not others or (ours.label, data) not in found.runs:
        return []
    cells = []
    for measure in _MEASURES:
        values = _values(found, others, data, measure)
        best = max(values, key=lambda value: value[0], default=None)
        told = DASH if best is None else f"{percent(best[0])} ({best[1]})"
        cells += [cell_text(cell(found, ours, data, measure)), told]
    return [data, *cells, str(len(others))]


def _values(
    found: Found, rows: Sequence[Row], data: str, measure: str
) -> Iterator[tuple[float, str]]:
    """Every value of some rows and its name, under each way of pooling their maps."""
    for row in rows:
        for pooling in (OWN, *POOLINGS):
            value = cell(found, replace(row, pooling=pooling), data, measure)
            if value is not None:
                yield value.mean, row.label if pooling == OWN else f"{row.label}, {pooling}"


def _section(found: Found, ours: Row, body: Sequence[Sequence[str]]) -> str:
    header = [text for name in _MEASURES.values() for text in (name, "best other")]
    seeds = {len(runs) for (label, _), runs in found.runs.items() if label == ours.label}
    settings = found.suite.run(ours, found.budget, found.sets[0], 0).config
    return (
        f"## `{OURS}` beside the others\n\n"
        f"`scrd` by its own score and, of the other methods of “{found.suite.title}”, the best by "
        f"each measure, whichever method and pooling of its map that is. Budget "
        f"`{found.budget}`: {settings.image_size} px, {settings.iterations:,} iterations, teacher "
        f"{settings.teacher}, {min(seeds)} seed{'s' * (min(seeds) > 1)}. In %.\n\n"
        f"{markdown(['', *header, 'others'], body)}"
    )
