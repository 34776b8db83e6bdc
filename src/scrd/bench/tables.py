"""Tables of a suite from result lines: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scrd.bench.found import (
    COSTS,
    VERDICTS,
    WITHIN,
    Cell,
    Found,
    cell,
    costs,
    mean_over_sets,
    overall_auroc,
    times_slower,
)
from scrd.bench.suite import METRICS, SELECTIONS
from scrd.bench.words import DASH, PLACES, cell_text, column_texts, markdown


def accuracy_table(found: Found, metric: str) -> str:
    """Rows × data sets in percent, the best of each column in bold."""
    sets, rows = found.sets, found.rows()
    several = len(sets) > 1
    columns: list[list[Cell | None]] = [
        [cell(found, row, data, metric) for row in rows] for data in sets
    ]
    if several:
        columns.append([mean_over_sets(found, row, metric) for row in rows])
    # what test labels have chosen wins no contest
    barred = {i for i, row in enumerate(rows) if row.select != SELECTIONS[0]}
    texts = [column_texts(column, barred) for column in columns]
    printed = metric == "auroc" and any(row.reference for row in rows)
    body = []
    for i, row in enumerate(rows):
        counts = sorted({c.seeds for c in (column[i] for column in columns[: len(sets)]) if c})
        cells = [row.label, *(text[i] for text in texts)]
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
                    f"{row.reference[data]:.1f}" if data in row.reference else DASH for data in sets
                )
                if row.reference
                else DASH
            )
        body.append(cells)
    header = ["method", *sets, *(["mean"] if several else []), "seeds"]
    return markdown([*header, "paper"] if printed else header, body)


_COSTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("parameters_trained", "trained, million", lambda v: f"{v / 1e6:.2f}"),
    ("bytes", "learnt or remembered, MB", lambda v: f"{v / 1e6:.1f}"),
    ("peak_memory_fit", "memory training, MiB", lambda v: f"{v / 2**20:.0f}"),
    ("peak_memory_score", "memory scoring, MiB", lambda v: f"{v / 2**20:.0f}"),
    ("fit_seconds", "training, s", lambda v: f"{v:.0f}"),
    ("seconds_per_image", "scoring, ms an image", lambda v: f"{1e3 * v:.2f}"),
)


def cost_table(found: Found) -> str:
    """Parameters, memory and time side by side, means over the runs.

    Where the suite names a base, its time to score an image is the unit of one more column, over
    the runs on one machine.
    """
    rows = found.rows()
    base = next((row for row in rows if row.label == found.suite.base), None)
    body = []
    for row in rows:
        of_row, size, times = costs(found, row), row.reference_megabytes, row.reference_times
        ratio = None if base is None else times_slower(found, row, base)
        body.append(
            [
                row.label,
                cell_text(overall_auroc(found, row)),
                *(show(of_row[name]) if name in of_row else DASH for name, _, show in _COSTS),
                DASH if ratio is None else f"{ratio:.2f} ×",
                DASH if times is None else f"{times:g} ×",
                DASH if size is None else f"{size:.1f}",
            ]
        )
    compared = f"scoring, times {found.suite.base}"
    titles = [*(title for _, title, _ in _COSTS), compared, "paper, times", "paper, MB"]
    return markdown(["method", "AUROC", *titles], body)


_REFERENCES = {
    "brightest_place_hit_rate": "brightest place",
    "centre_hit_rate": "centre of the image",
}


def findings_table(found: Found, data: str) -> str:
    """AUROC within strata, where the maps of one data set point, and what is flagged.

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
        column_texts([cell(found, row, data, name) if row in distinct else None for row in rows])
        for name in (PLACES if marked else ())
    ]
    strata = found.strata(data)
    within = [column_texts([cell(found, row, data, name) for row in rows]) for name in strata]
    by_image = any(cell(found, row, data, VERDICTS[2]) is not None for row in rows)
    shown = VERDICTS if by_image else VERDICTS[:2]
    body = []
    for i, row in enumerate(rows):
        where = [column[i] if row in distinct else "" for column in places]
        verdicts = [cell_text(cell(found, row, data, name)) for name in shown]
        body.append([row.label, *(column[i] for column in within), *where, *verdicts])
    for name, title in _REFERENCES.items() if marked else ():
        # neither depends on the run
        rest = [""] * (len(PLACES) - 1 + len(shown))
        body.append([title, *([""] * len(strata)), f"{100 * marked[0][name]:.1f}", *rest])
    rates = {line["key"]["settings"]["false_alarm_rate"] for line in lines}
    asked = f" at {100 * rates.pop():g} %" if len(rates) == 1 else ""
    pair = (f"sensitivity{asked}", "false alarms")
    told = (*pair, *(f"{title}, by image" for title in pair))
    stratified = [f"AUROC within {name.removeprefix(WITHIN)}" for name in strata]
    titles = [*stratified, *(PLACES.values() if marked else ()), *told[: len(shown)]]
    return markdown(["method", *titles], body)


def weights_table(found: Found) -> str:
    """Mean scale weight α by data set, shallowest scale first; empty where no run has any."""
    body = []
    for row in found.distinct_rows():
        cells = []
        for data in found.sets:
            weights = [
                line["scale_weights"]
                for line in found.runs.get((row.label, data), {}).values()
                if "scale_weights" in line
            ]
            mean = np.mean(weights, axis=0) if weights else ()
            cells.append(", ".join(f"{w:.2f}" for w in mean) or DASH)
        if any(text != DASH for text in cells):
            body.append([row.label, *cells])
    return markdown(["method", *found.sets], body) if body else ""


def csv_table(found: Found) -> str:
    """Everything that the tables show and more, one line a row and data set; shares, not percent.

    A row without runs keeps its lines, with empty cells.
    """
    header = ["label", "method", "pooling", "data", "seeds"]
    for metric in METRICS:
        header += [metric, f"{metric}_sd", f"{metric}_low", f"{metric}_high"]
    strata = sorted({name for data in found.suite.sets for name in found.strata(data)})
    header += [*strata, *VERDICTS, *PLACES, *COSTS, "paper_auroc"]
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
            for name in (*strata, *VERDICTS, *PLACES):
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
