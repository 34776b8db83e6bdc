"""Write the tables of the performance benchmarks: ``python benchmarks/performance_tables.py``.

Of the lines of a benchmark that agree in the settings shown, the last in the results file counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "performance.jsonl"
PAGE = Path(__file__).parent.parent / "docs" / "performance" / "tables.md"
SHOWN = {
    "training step": (
        "teacher",
        "threads",
        "objective",
        "side",
        "cached",
        "precision",
        "deterministic",
    ),
    "scoring": ("teacher", "way", "side", "batch"),
    "cold start": (),
    "parity": ("data", "way"),
    "growth": ("sweep", "what", "side", "batch", "images"),
}


def read() -> dict[str, list[dict[str, Any]]]:
    """Lines by benchmark, the last of each setting."""
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for text in RESULTS.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        shown = SHOWN.get(line["name"]) or sorted(line["settings"])
        last[line["name"], str([line["settings"].get(key) for key in shown])] = line
    found: dict[str, list[dict[str, Any]]] = {}
    for (name, _), line in last.items():
        found.setdefault(name, []).append(line)
    return found


def table(lines: list[dict[str, Any]], shown: tuple[str, ...]) -> list[str]:
    """A Markdown table: settings, and the median, lowest and highest of what was measured."""
    known = dict.fromkeys(k for line in lines for k in line["settings"])
    settings = [k for k in shown or known if k in known]
    values = list(dict.fromkeys(k for line in lines for k in line["median"]))
    rows = [[*settings, *(v.replace("_", " ") for v in values)], ["---"] * len(settings)]
    rows[1] += ["---:"] * len(values)
    for line in lines:
        cells = [str(line["settings"].get(name, "")) for name in settings]
        for value in values:
            cells.append(spread(line["values"].get(value), line["median"].get(value)))
        rows.append(cells)
    return [f"| {' | '.join(row)} |" for row in rows]


def by_machine(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Lines by where and of which version they were measured: only such are to be compared."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        machine, version = line["machine"], line["versions"]["scrd"]
        place = f"{machine['cpu']}, {machine['cores']} cores, scrd {version}"
        found.setdefault(place, []).append(line)
    return found


def spread(values: Any, median: float | None) -> str:
    """The median, and in brackets the range of the repeats."""
    if median is None:
        return ""
    if min(values) == max(values):
        return number(median)
    return f"{number(median)} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three digits that count; whole numbers in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Write the page."""
    found = read()
    text = ["# Performance: all figures", ""]
    text += [
        "Written by `python benchmarks/performance_tables.py`. Medians, lowest to highest.",
        "",
    ]
    for name, lines in found.items():
        if not any(line["median"] for line in lines):
            continue
        text += [f"## {name[0].upper()}{name[1:]}", ""]
        for measured, some in by_machine(lines).items():
            repeats = max(line["repeats"] for line in some)
            text += [f"{measured}; up to {repeats} repeats."]
            text += ["", *table(some, SHOWN.get(name, ())), ""]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
