"""By how much single choices move a figure: differences to a base row, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from scrd.bench.found import Cell, Found, cell, figures_of, over_seeds
from scrd.bench.suite import SELECTIONS, SPLITS, Row
from scrd.bench.words import DASH, cell_text, markdown, percent, points


def effect(found: Found, row: Row, data: str, metric: str = "auroc") -> Cell | None:
    """The difference of a row to the suite's base, over the seeds that both have.

    Differences are taken seed by seed, so that what a seed does to both is no spread of the effect,
    and between runs of one kind of machine alone: each rounds in its way, which a training turns
    into points. None without such a seed.
    """
    base = base_row(found)
    if base is None:
        return None
    mine, its = (
        {
            (seed, line["machine"]["device"]): figures[metric]
            for seed, line in found.runs.get((of.label, data), {}).items()
            if metric in (figures := figures_of(line, of))
        }
        for of in (row, base)
    )
    common = sorted(set(mine) & set(its))
    return over_seeds([mine[run] - its[run] for run in common]) if common else None


def base_row(found: Found) -> Row | None:
    """The row that the others are compared with, if it has runs."""
    return next((row for row in found.rows() if row.label == found.suite.base), None)


def effect_text(difference: Cell | None) -> str:
    """Mean difference in points, ± the standard deviation over the seeds."""
    if difference is None:
        return DASH
    text = points(difference.mean)
    if math.isnan(difference.deviation):  # of one seed
        return text
    return f"{text} ± {percent(difference.deviation)}"


def effects_table(found: Found) -> str:
    """Rows × data sets: AUROC of the base, then what each choice adds to it, in points."""
    base = base_row(found)
    if base is None:
        return ""
    body = []
    for row in found.rows():
        if row is base:
            base_cells = (cell(found, row, data, "auroc") for data in found.sets)
            cells = [cell_text(c and replace(c, interval=None)) for c in base_cells]
        else:
            cells = [effect_text(effect(found, row, data)) for data in found.sets]
        seeds = sorted({len(found.runs.get((row.label, data), {})) for data in found.sets} - {0})
        ends = dict.fromkeys((seeds[0], seeds[-1]))
        body.append([row.label, *cells, " to ".join(str(n) for n in ends)])
    return markdown(["choice", *found.sets, "seeds"], body)


def split_notes(found: Found) -> Iterator[str]:
    """In a sentence a data set: what a random split tears apart, or that nobody knows."""
    drawn = [row for row in found.rows() if row.split != SPLITS[0]]
    for data in found.sets:
        lines = [line for row in drawn for line in found.runs.get((row.label, data), {}).values()]
        facts = [line["split"] for line in lines]
        if not facts:
            continue
        tested, grouped, torn, train = (
            sum(f[name] for f in facts) for name in ("tested", "grouped", "torn", "train_grouped")
        )
        if not grouped or not train:
            yield (
                f"{data}: no groups are known of its train normals, so that the random split "
                "differs from the set's own only by where the images come from."
            )
        else:
            normals = [line["normals"] for line in lines]
            trained = sum(n["trained"] + n["calibrated"] for n in normals)
            yield (
                f"{data}: at random {percent(torn / tested)} % of the test normals have an image "
                "of their group among the train normals, as far as groups are known: of "
                f"{percent((grouped + train) / (tested + trained))} % of the normals."
            )


def selection_notes(found: Found) -> Iterator[str]:
    """Which iteration test labels chose, a data set."""
    for row in found.rows():
        if row.select == SELECTIONS[0]:
            continue
        for data in found.sets:
            lines = found.runs.get((row.label, data), {}).values()
            chosen = ", ".join(str(line["selection"]["iteration"]) for line in lines)
            if chosen:
                last = next(iter(lines))["selection"]["iterations"]
                yield (
                    f"{data}, {row.label}: iteration {chosen} of {last[-1]}, out of {len(last)} "
                    "checkpoints. Test labels chose; it is no result."
                )
