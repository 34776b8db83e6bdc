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
    VERDICTS,
    Cell,
    Found,
    cell,
    costs,
    mean_over_sets,
    overall_auroc,
)
from scrd.bench.suite import METRICS

DASH = "–"
"""Stands for a run that is missing."""
NOT_IMPLEMENTED = "not implemented"
NAMES = {"auroc": "AUROC", "ap": "average precision", "f1": "F1", "acc": "accuracy"}


def accuracy_table(found: Found, metric: str) -> str:
    """Rows × data sets in percent, the best of each column in bold."""
    suite, rows = found.suite, found.told_rows()
    several = len(suite.sets) > 1
    columns: list[list[Cell | None]] = [
        [cell(found, row, data, metric) for row in rows] for data in suite.sets
    ]
    if several:
        columns.append([mean_over_sets(found, row, metric) for row in rows])
    texts = [_column(column) for column in columns]
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


def _column(cells: Sequence[Cell | None]) -> list[str]:
    """Texts of a column, the best in bold unless it stands alone."""
    rounded = [None if c is None else round(100 * c.mean, 1) for c in cells]
    known = [value for value in rounded if value is not None]
    best = max(known) if len(known) > 1 else None
    return [
        _text(c, bold=c is not None and value == best)
        for c, value in zip(cells, rounded, strict=True)
    ]


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
    rows = found.told_rows()
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


_PLACES = {"pointing_hit_rate": "pointing", "pixel_ap": "pixel AP", "aupro": "AUPRO"}
_REFERENCES = {
    "brightest_place_hit_rate": "brightest place",
    "centre_hit_rate": "centre of the image",
}


def findings_table(found: Found, data: str) -> str:
    """Where the maps of one data set point, and what is flagged at the calibrated threshold.

    Rows that pool the same map otherwise leave its place blank, after the first. Below them stand
    the two places that need no map. Without masks or boxes the first columns are absent; without
    runs there is no table.
    """
    suite = found.suite
    rows = [row for row in suite.rows_of(found.budget) if (row.label, data) in found.runs]
    lines = [line for row in rows for line in found.runs[row.label, data].values()]
    if not lines:
        return ""
    marked = [line["localisation"] for line in lines if "localisation" in line]
    distinct = found.distinct_rows()
    places = [
        _column([cell(found, row, data, name) if row in distinct else None for row in rows])
        for name in (_PLACES if marked else ())
    ]
    body = []
    for i, row in enumerate(rows):
        where = [column[i] if row in distinct else "" for column in places]
        verdicts = [_text(cell(found, row, data, name), bold=False) for name in VERDICTS]
        body.append([row.label, *where, *verdicts])
    for name, title in _REFERENCES.items() if marked else ():
        # neither depends on the run
        body.append([title, f"{100 * marked[0][name]:.1f}", "", "", "", ""])
    rates = {line["key"]["settings"]["false_alarm_rate"] for line in lines}
    asked = f" at {100 * rates.pop():g} %" if len(rates) == 1 else ""
    titles = [*(_PLACES.values() if marked else ()), f"sensitivity{asked}", "false alarms"]
    return markdown(["method", *titles], body)


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
    header += [*VERDICTS, *_PLACES, *COSTS, "paper_auroc"]
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
            for name in (*VERDICTS, *_PLACES):
                c = cell(found, row, data, name)
                if c is not None:
                    values[name] = c.mean
            for name in COSTS:
                known = [line["cost"][name] for line in lines if name in line["cost"]]
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
