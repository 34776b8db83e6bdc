"""The page of results: every suite's tables and figures, from results files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scrd.bench.effects import effects_table, selection_notes, split_notes
from scrd.bench.figures import figures
from scrd.bench.found import Found, find
from scrd.bench.heatmaps import heatmaps
from scrd.bench.kept_maps import maps_folder
from scrd.bench.results import Line, read_results
from scrd.bench.suite import Suite
from scrd.bench.tables import (
    accuracy_table,
    cost_table,
    csv_table,
    findings_table,
    weights_table,
)
from scrd.bench.verdict import verdict
from scrd.bench.words import NAMES
from scrd.system.files import write_atomically

PAGE = "results.md"
FOLDER = "results"

_TITLE = """# Results

Made by `scrd bench report` from results files; nothing here is written by hand.
"""

_HEAD = """## How to read the tables

`scrd bench run SUITE DATA --results FILE` does the runs of a suite that are missing, and
`scrd bench report FILE --out docs` makes this page. DATA holds the folders of the data sets.

Every method trains on the same images, without labels, and is scored with its last weights. AUROC
and the others are in %: mean ± standard deviation over the seeds, then the mean 95 % interval of
a run, bootstrapped over groups of test images. *mean* is the mean of the data sets. The best of a
column is bold, whether or not the difference is more than chance. – is a run that is missing; rows,
columns and tables of which nothing was run are left out. Where
there is a column *paper*, it has the figures that the paper prints, from other splits of the same
collections, with training settings of their own; they are not comparable line by line. F1 and
accuracy are at the threshold that maximises F1 on the test set, as the paper has them.

In the table of a data set *AUROC within* a column of the manifest, such as the view, is that of
pairs of a normal and an abnormal image that have the same in it: what is left where telling views
apart does not help. *Pointing* is how often the map's maximum lies in a lesion's mask or
box; *pixel AP* and *AUPRO* (to a pixel false-positive rate of 30 %) are over the pixels of all
images that are marked or normal. Blank is what the same map has in a row above. *Sensitivity* is
the share of abnormal images that are flagged at the threshold that held-out normals gave for the
false-alarm rate in the head of the column, *false alarms* that of the normal images; both are 0
where too few groups of normals were held out for that rate. The rate is promised for images of new
groups, such as patients; *by image* is the same rate promised for no more than images like the
single calibration images.
"""

_EFFECTS = """AUROC of *{base}*, %, and what each choice adds to it, in points: mean of the
differences seed by seed ± their standard deviation over the seeds:

{table}"""


def write_page(results: Sequence[Path], suites: Sequence[Suite], out: Path) -> list[str]:
    """Write ``results.md``, and beside it ``results/`` with one CSV a table and the figures.

    Args:
        results: the files; a run in several of them counts once, the last.
        suites: sections of the page, in this order.
        out: folder to write to.

    Returns:
        The damaged lines that were left out, in words.

    Raises:
        ResultsError: a file cannot be read.
    """
    lines: list[Line] = []
    damaged: list[str] = []
    for path in results:
        content = read_results(path)
        lines += content.lines
        damaged += content.damaged
    folders = [maps_folder(path) for path in results]
    sections = []
    contents, idle = [], []
    for suite in suites:
        reported = [f for budget in suite.budgets if (f := find(suite, budget, lines)).runs]
        reported = [f for f in reported if _compares(f)] or reported
        if not reported:
            idle.append(f"`scrd bench run {suite.name} DATA --results FILE`")
            continue
        sections.append(f"## {suite.title}\n\n{suite.text}\n")
        budgets = ", ".join(found.budget for found in reported)
        contents.append(f"- [{suite.title}](#{_anchor(suite.title)}): {budgets}")
        for found in reported:
            sections += _section(found, out, folders)
    text = [_TITLE, verdict(suites, lines), "## Contents\n", *contents, ""]
    if idle:
        text.append(f"No runs yet: {'; '.join(idle)}.\n")
    write_atomically(out / PAGE, "\n".join([*text, _HEAD, *sections]))
    return damaged


def _compares(found: Found) -> bool:
    """Whether there are two rows; `scrd` is told alone too, but not one figure of it."""
    rows = found.distinct_rows()
    return len(rows) > 1 or (rows[0].method == "scrd" and len(found.runs) > 1)


def _anchor(title: str) -> str:
    """What a Markdown viewer makes of a heading."""
    kept = (c for c in title.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def _section(found: Found, out: Path, folders: Sequence[Path]) -> list[str]:
    suite, name = found.suite, f"{found.suite.name}-{found.budget}"
    table = f"{FOLDER}/{name}.csv"
    write_atomically(out / table, csv_table(found))
    parts = [f"### {suite.title}: {found.budget}\n", _setting(found)]
    if suite.effects and (table_of_effects := effects_table(found)):
        parts.append(_EFFECTS.format(base=suite.base, table=table_of_effects))
        parts += [f"- {note}" for note in (*split_notes(found), *selection_notes(found))]
        parts.append("")
    for metric in suite.metrics:
        parts.append(f"{NAMES[metric]}, %:\n\n{accuracy_table(found, metric)}")
    for data in found.sets if suite.metrics else ():
        table_of_set = findings_table(found, data)
        if table_of_set:
            parts.append(f"{data}, %:\n\n{table_of_set}")
    if suite.costs:
        parts.append(f"Parameters, time and memory, means over the runs:\n\n{cost_table(found)}")
    told = found.rows()
    missing = [row for row in suite.rows_of(found.budget) if row not in told]
    for what, labels in (
        ("Not run at this budget", [row.label for row in missing if row.method is not None]),
        ("Not implemented", [row.label for row in missing if row.method is None]),
        ("Sets without runs", [data for data in suite.sets if data not in found.sets]),
    ):
        if labels:
            parts.append(f"{what}: {'; '.join(labels)}.\n")
    weights = weights_table(found)
    if weights and "alpha" in suite.figures:
        parts.append(f"Mean scale weights α on the test images, finest scale first:\n\n{weights}")
    parts.append(f"All figures: [{name}.csv]({table}).\n")
    drawn = list(figures(found))
    if "heatmaps" in suite.figures:
        maps, absent = heatmaps(found, folders)
        drawn += [maps] if maps is not None else []
        parts += [f"{absent}\n"] if absent else []
    for figure in drawn:
        picture = f"{FOLDER}/{name}-{figure.name}.svg"
        write_atomically(out / picture, figure.svg)
        parts.append(f"![{figure.caption}]({picture})\n\n{figure.caption}\n")
    return parts


def _setting(found: Found) -> str:
    """Budget, machines, versions, data: what must be known to read the table."""
    lines = found.lines
    budget = ", ".join(
        f"{name} {_used(lines, name)}"
        for name in found.suite.budgets[found.budget]
        if _used(lines, name)
    )
    machines = Counter(
        f"{x['machine']['device']}, {x['machine']['threads']} CPU thread(s)" for x in lines
    )
    versions = Counter(
        f"scrd {x['versions']['scrd']}, torch {x['versions']['torch']}" for x in lines
    )
    text = [
        f"Budget `{found.budget}`: {budget}. {len(lines)} runs.",
        f"Machine: {_counted(machines)}.",
        f"Versions: {_counted(versions)}.",
    ]
    for data in found.sets:
        prints = Counter(x["key"]["fingerprint"][:12] for x in lines if x["key"]["data"] == data)
        if len(prints) > 1:
            text.append(f"**Runs on different contents of {data} are mixed: {_counted(prints)}.**")
    if found.superseded:
        text.append(f"{found.superseded} earlier run(s) of the same cells are left out.")
    return "\n".join(text) + "\n"


def _used(lines: Sequence[Line], name: str) -> str:
    """The values of a setting in some runs, the most frequent first; a preset may have its own."""
    settings = [line["key"]["settings"] for line in lines]
    return " or ".join(
        v for v, _ in Counter(str(s[name]) for s in settings if name in s).most_common()
    )


def _counted(names: Counter[str]) -> str:
    """What there is, with the number of runs only if they differ."""
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{name} ({count} runs)" for name, count in sorted(names.items()))
