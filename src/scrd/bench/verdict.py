"""What of the paper reproduces: sentences that are put together from result lines alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from scrd.bench.effects import base_row, effect, effect_text, split_notes
from scrd.bench.found import Cell, Found, cell, find
from scrd.bench.results import Line
from scrd.bench.standing import standing
from scrd.bench.suite import Suite
from scrd.bench.words import markdown, percent, points

WITHIN = 0.015
"""A figure counts as reproduced from this far below the printed one, as a share."""
COMPARISON, ABLATION, EFFECTS = "paper-table1", "paper-table2", "effects"
_NAMED = 3


class Figure(NamedTuple):
    """A figure that the paper prints and that was measured here.

    Attributes:
        label: of the row.
        data: the set.
        printed: AUROC, as a share.
        here: the same, measured.
        found: the runs, of which ``budget`` is the largest with this figure.
    """

    label: str
    data: str
    printed: float
    here: Cell
    found: Found

    @property
    def gap(self) -> float:
        """What is measured here minus what is printed."""
        return self.here.mean - self.printed


def verdict(suites: Sequence[Suite], lines: Sequence[Line]) -> str:
    """The page's first screen, Markdown.

    Args:
        suites: of the page; those named after the paper's tables and ``effects`` are used.
        lines: all results.
    """
    by_name = {suite.name: suite for suite in suites}
    if COMPARISON not in by_name:
        return ""
    figures = printed_figures(by_name[COMPARISON], lines)
    if not figures:
        return (
            "Nothing that the paper prints was measured as printed yet: "
            f"`scrd bench run {COMPARISON} DATA --results FILE` does it.\n"
        )
    comparison = by_name[COMPARISON]
    parts = [standing(comparison, lines), "## What of the paper reproduces\n"]
    parts += [f"- {sentence}" for sentence in _claim(comparison, figures)]
    parts += ["", " ".join(_counted(figures)) + "\n", _table(comparison, figures)]
    if ABLATION in by_name:
        parts.append(" ".join(_steps(by_name[ABLATION], lines)) + "\n")
    parts.append("### What explains the gap\n")
    parts += [f"- {sentence}" for sentence in _explained(figures, by_name.get(EFFECTS), lines)]
    return "\n".join(parts) + "\n"


def printed_figures(suite: Suite, lines: Sequence[Line]) -> list[Figure]:
    """What the paper prints of a suite and was measured here, each at its largest budget."""
    reported = [find(suite, budget, lines) for budget in suite.budgets]
    figures = []
    for row in suite.rows:
        for data, printed in row.reference.items():
            for found in reported:
                here = cell(found, row, data, "auroc")
                if here is not None and row in suite.rows_of(found.budget):
                    figures.append(Figure(row.label, data, printed / 100, here, found))
                    break
    return figures


def _claim(suite: Suite, figures: Sequence[Figure]) -> Iterator[str]:
    """The paper's own method: printed, measured, and its place among the others."""
    for own in (f for f in figures if f.label == suite.base):
        others = [f for f in figures if f.data == own.data and f.found.budget == own.found.budget]
        places = [
            1 + sum(f.printed > own.printed for f in others),
            1 + sum(f.here.mean > own.here.mean for f in others),
        ]
        yield (
            f"**{own.label} on {own.data}: printed {percent(own.printed)}, here "
            f"{percent(own.here.mean)} ({_setting(own)}), gap {points(own.gap)}**; of the "
            f"{len(others)} methods measured alike number {places[0]} in print, "
            f"number {places[1]} here."
        )


def _counted(figures: Sequence[Figure]) -> Iterator[str]:
    reproduced = [f for f in figures if f.gap >= -WITHIN]
    below = sorted((f for f in figures if f.gap < -WITHIN), key=lambda f: f.gap)
    rows = len({f.label for f in figures})
    yield (
        f"Of the AUROCs in the paper's Table 1, {len(figures)} were measured here, of {rows} "
        f"methods; {len(reproduced)} reach the printed figure or lie at most {percent(WITHIN)} "
        f"points below it, {len(below)} do not."
    )
    if reproduced:
        yield f"Reached: {'; '.join(f'{f.label} on {f.data}' for f in reproduced)}."
    if below:
        told = (
            f"{f.label} on {f.data}, printed {percent(f.printed)}, here {percent(f.here.mean)} "
            f"({_setting(f)}), gap {points(f.gap)}"
            for f in below[:_NAMED]
        )
        yield f"Farthest below: {'; '.join(told)}."
        yield f"The median gap of all is {points(median(f.gap for f in figures))}."


def _table(suite: Suite, figures: Sequence[Figure]) -> str:
    sets = [data for data in suite.sets if any(f.data == data for f in figures)]
    by_label: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        by_label.setdefault(figure.label, {})[figure.data] = figure
    common = {_setting(f) for f in figures}
    body = []
    for label, of_row in by_label.items():
        cells = []
        for data in sets:
            f = of_row.get(data)
            cells.append(
                f"{percent(f.printed)} → {percent(f.here.mean)} ({points(f.gap)})" if f else "–"
            )
        settings = dict.fromkeys(_setting(f) for f in of_row.values())
        body.append([label, *cells, "; ".join(settings) if len(common) > 1 else ""])
    table = markdown(["printed → here (gap)", *sets, "here with"], body)
    return f"{table}\nAll with {common.pop()}.\n" if len(common) == 1 else table


def _setting(figure: Figure) -> str:
    """Teacher, size, iterations and seeds behind a figure."""
    lines = [
        line
        for (label, data), seeds in figure.found.runs.items()
        if (label, data) == (figure.label, figure.data)
        for line in seeds.values()
    ]
    settings = lines[0]["key"]["settings"]
    seeds = f"{len(lines)} seed{'s' * (len(lines) > 1)}"
    return (
        f"{settings['teacher']}, {settings['image_size']} px, "
        f"{settings['iterations']:,} iterations, {seeds}"
    )


def _steps(suite: Suite, lines: Sequence[Line]) -> Iterator[str]:
    """What each step of the paper's ablation adds, printed and here."""
    by_row: dict[str, dict[str, Figure]] = {}
    for figure in printed_figures(suite, lines):
        by_row.setdefault(figure.label, {})[figure.data] = figure
    steps = list(by_row)
    for before, after in zip(steps, steps[1:], strict=False):
        told = []
        for data, f in by_row[after].items():
            g = by_row[before].get(data)
            if g is not None and g.found.budget == f.found.budget:
                printed, here = f.printed - g.printed, f.here.mean - g.here.mean
                told.append(f"{data} printed {points(printed)}, here {points(here)}")
        if told:
            yield f"From “{before}” to “{after}” of Table 2: {'; '.join(told)}."


def _explained(
    figures: Sequence[Figure], suite: Suite | None, lines: Sequence[Line]
) -> Iterator[str]:
    """Known differences of setting, then measured effects."""
    keys = [line["key"] for f in figures for line in f.found.runs[f.label, f.data].values()]
    for title, name, printed in (
        ("Teacher", "teacher", "wide_resnet50_2"),
        ("Side of the input", "image_size", 256),
        ("Iterations", "iterations", 4000),
        ("Window", "window", "data"),
    ):
        counts = Counter(_shown(key["settings"][name]) for key in keys)
        if set(counts) != {_shown(printed)}:
            used = ", ".join(value for value, _ in counts.most_common())
            yield f"{title}: {_shown(printed)} in the paper, here {used}."
    found = _effects(suite, lines)
    if found is None:
        yield (
            "Split, window, schedule, iterations and selection on the test set, one at a time: not "
            "measured yet; `scrd bench run effects DATA --results FILE` does it."
        )
        return
    base = base_row(found)
    effects = []
    for row in found.rows():
        told = [
            f"{data} {effect_text(difference)}"
            for data in found.sets
            if row is not base and (difference := effect(found, row, data)) is not None
        ]
        if told:
            effects.append(f"{row.label}: {', '.join(told)}")
    if effects:
        yield f"Against “{found.suite.base}”, budget `{found.budget}`: {'; '.join(effects)}."
    yield from split_notes(found)


def _effects(suite: Suite | None, lines: Sequence[Line]) -> Found | None:
    if suite is None:
        return None
    reported = (find(suite, budget, lines) for budget in suite.budgets)
    return next((f for f in reported if base_row(f) is not None and len(f.rows()) > 1), None)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
