"""Tables of a suite from result lines: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scrd.bench.found import (
    COSTS,
    Cell,
    Found,
    cell,
    costs,
    mean_over_sets,
    over_seeds,
    overall_auroc,
)
from scrd.bench.suite import METRICS

DASH = "–"
"""Stands for a run that is missing."""
NOT_IMPLEMENTED = "not implemented"
NAMES = {"auroc": "AUROC", "ap": "average precision", "f1": "F1", "acc": "accuracy"}


def accuracy_table(found: Found, metric: str) -> str:
    """Rows × data sets in percent, the best of each column in bold."""
    suite, rows = found.suite, found.suite.rows_of(found.budget)
    several = len(suite.sets) > 1
    columns: list[list[Cell | None]] = [
        [cell(found, row, data, metric) for row in rows] for data in suite.sets
    ]
    if several:
        columns.append([mean_over_sets(found, row, metric) for row in rows])
    texts = []
    for column in columns:
        best = max((round(100 * c.mean, 1) for c in column if c), default=math.nan)
        alone = sum(c is not None for c in column) == 1
        texts.append(
            [
                _text(c, bold=c is not None and not alone and round(100 * c.mean, 1) == best)
                for c in column
            ]
        )
    printed = metric == "auroc" and any(row.reference for row in rows)
    body = []
    for i, row in enumerate(rows):
        counts = sorted(
            {c.seeds for c in (column[i] for column in columns[: len(suite.sets)]) if c}
        )
        cells = [row.label, *(text[i] for text in texts)]
        if row.method is None:
            cells[1:] = [NOT_IMPLEMENTED, *[DASH] * (len(columns) - 1)]
        cells.append(
            DASH
            if not counts
            else f"{counts[0]}"
            if len(counts) == 1
            else f"{counts[0]} to {counts[-1]}"
        )
        if printed:
            cells.append(
                " / ".join(
                    f"{row.reference[data]:.1f}" if data in row.reference else DASH
                    for data in suite.sets
                )
                if row.reference
                else DASH
            )
        body.append(cells)
    header = ["method", *suite.sets, *(["mean"] if several else []), "seeds"]
    return markdown([*header, "paper"] if printed else header, body)


def _text(found: Cell | None, *, bold: bool) -> str:
    if found is None:
        return DASH
    text = f"{100 * found.mean:.1f}"
    if not math.isnan(found.deviation):
        text += f" ± {100 * found.deviation:.1f}"
    text = f"**{text}**" if bold else text
    if found.interval:
        text += f" ({100 * found.interval[0]:.1f} to {100 * found.interval[1]:.1f})"
    return text


_COSTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("parameters_trained", "trained, million", lambda v: f"{v / 1e6:.2f}"),
    ("bytes", "learnt or remembered, MB", lambda v: f"{v / 1e6:.1f}"),
    ("seconds_per_image", "ms an image", lambda v: f"{1e3 * v:.2f}"),
    ("peak_memory_score", "peak memory, MiB", lambda v: f"{v / 2**20:.0f}"),
    ("fit_seconds", "training, s", lambda v: f"{v:.0f}"),
)


def cost_table(found: Found) -> str:
    """Parameters, time and memory, means over the runs."""
    rows = found.suite.rows_of(found.budget)
    printed = any(row.reference_megabytes is not None for row in rows)
    body = []
    for row in rows:
        if row.method is None:
            cells = [row.label, NOT_IMPLEMENTED, *[DASH] * len(_COSTS)]
        else:
            of_row = costs(found, row)
            overall = overall_auroc(found, row)
            cells = [
                row.label,
                _text(overall, bold=False),
                *(show(of_row[name]) if name in of_row else DASH for name, _, show in _COSTS),
            ]
        if printed:
            size = row.reference_megabytes
            cells.append(DASH if size is None else f"{size:.1f}")
        body.append(cells)
    header = ["method", "AUROC", *(title for _, title, _ in _COSTS)]
    return markdown([*header, "paper, MB"] if printed else header, body)


def localisation_table(found: Found) -> str:
    """How often the map's maximum lies in a lesion; empty where no run was asked."""
    names = ("pointing_hit_rate", "brightest_place_hit_rate", "centre_hit_rate")
    body = []
    for row in found.distinct_rows():
        for data in found.suite.sets:
            places = [
                line["localisation"]
                for line in found.runs.get((row.label, data), {}).values()
                if "localisation" in line
            ]
            if places:
                rates = [over_seeds([p[name] for p in places]) for name in names]
                # the two baselines do not depend on the seed
                shown = [_text(rates[0], bold=False), *(f"{100 * c.mean:.1f}" for c in rates[1:])]
                body.append([row.label, data, *shown])
    header = ["method", "data", "map's maximum", "brightest place", "centre of the image"]
    return markdown(header, body) if body else ""


def weights_table(found: Found) -> str:
    """Mean scale weight α by data set, shallowest scale first; empty where no run has any."""
    body = []
    for row in found.distinct_rows():
        cells = []
        for data in found.suite.sets:
            weights = [
                line["scale_weights"]
                for line in found.runs.get((row.label, data), {}).values()
                if "scale_weights" in line
            ]
            mean = np.mean(weights, axis=0) if weights else ()
            cells.append(", ".join(f"{w:.2f}" for w in mean) or DASH)
        if any(text != DASH for text in cells):
            body.append([row.label, *cells])
    return markdown(["method", *found.suite.sets], body) if body else ""


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(c.replace("|", r"\|") for c in row) + " |\n" for row in rows)


def csv_table(found: Found) -> str:
    """Everything that the tables show and more, one line a row and data set; shares, not percent.

    A row without runs keeps its lines, with empty cells.
    """
    header = ["label", "method", "pooling", "data", "seeds"]
    for metric in METRICS:
        header += [metric, f"{metric}_sd", f"{metric}_low", f"{metric}_high"]
    header += ["false_alarm_rate", "pointing_hit_rate", *COSTS, "paper_auroc"]
    file = io.StringIO()
    writer = csv.DictWriter(file, header, lineterminator="\n")
    writer.writeheader()
    for row in found.suite.rows_of(found.budget):
        for data in found.suite.sets:
            lines = list(found.runs.get((row.label, data), {}).values())
            values: dict[str, Any] = {
                "label": row.label,
                "method": row.method,
                "pooling": row.pooling,
                "data": data,
                "seeds": len(lines),
            }
            for metric in METRICS:
                c = cell(found, row, data, metric)
                if c is not None:
                    values |= {metric: c.mean, f"{metric}_sd": c.deviation}
                    if c.interval:
                        values[f"{metric}_low"], values[f"{metric}_high"] = c.interval
            groups = (("metrics", "false_alarm_rate"), ("localisation", "pointing_hit_rate"))
            for group, name in (*groups, *(("cost", name) for name in COSTS)):
                known = [line[group][name] for line in lines if name in line.get(group, ())]
                known = [value for value in known if value is not None]
                if known:
                    values[name] = float(np.mean(known))
            if data in row.reference:
                values["paper_auroc"] = row.reference[data] / 100
            writer.writerow({name: _short(value) for name, value in values.items()})
    return file.getvalue()


def _short(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value
