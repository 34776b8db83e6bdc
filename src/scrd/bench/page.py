"""The page of results: every suite's tables and figures, from results files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scrd.bench.figures import figures
from scrd.bench.found import Found, find
from scrd.bench.results import Line, read_results
from scrd.bench.suite import Suite
from scrd.bench.tables import (
    NAMES,
    accuracy_table,
    cost_table,
    csv_table,
    findings_table,
    weights_table,
)
from scrd.system.files import write_atomically

PAGE = "results.md"
FOLDER = "results"

_HEAD = """# Results

Made by `scrd bench report` from results files; nothing here is written by hand.

`scrd bench run SUITE DATA --results FILE` does the runs of a suite that are missing, and
`scrd bench report FILE --out docs` makes this page. DATA holds the folders of the data sets.

Every method trains on the same images, without labels, and is scored with its last weights. AUROC
and the others are in %: mean ± standard deviation over the seeds, then the mean 95 % interval of
a run, bootstrapped over groups of test images. *mean* is the mean of the data sets. The best of a
column is bold, whether or not the difference is more than chance. – is a run that is missing. Where
there is a column *paper*, it has the figures that the paper prints, from other splits of the same
collections, with training settings of their own; they are not comparable line by line. F1 and
accuracy are at the threshold that maximises F1 on the test set, as the paper has them.

In the table of a data set *pointing* is how often the map's maximum lies in a lesion's mask or
box; *pixel AP* and *AUPRO* (to a pixel false-positive rate of 30 %) are over the pixels of all
images that are marked or normal. Blank is what the same map has in a row above. *Sensitivity* is
the share of abnormal images that are flagged at the threshold that held-out normals gave for the
false-alarm rate in the head of the column, *false alarms* that of the normal images; both are 0
where too few groups of normals were held out for that rate.
"""


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
    sections = [_HEAD]
    for suite in suites:
        sections.append(f"## {suite.title}\n\n{suite.text}\n")
        reported = [f for budget in suite.budgets if (f := find(suite, budget, lines)).runs]
        if not reported:
            sections.append(f"No runs yet: `scrd bench run {suite.name} DATA --results FILE`.\n")
        for found in reported:
            sections += _section(found, out)
    write_atomically(out / PAGE, "\n".join(sections))
    return damaged


def _section(found: Found, out: Path) -> list[str]:
    suite, name = found.suite, f"{found.suite.name}-{found.budget}"
    table = f"{FOLDER}/{name}.csv"
    write_atomically(out / table, csv_table(found))
    parts = [f"### {suite.title}: {found.budget}\n", _setting(found)]
    for metric in suite.metrics:
        parts.append(f"{NAMES[metric]}, %:\n\n{accuracy_table(found, metric)}")
    for data in suite.sets:
        table_of_set = findings_table(found, data)
        if table_of_set:
            parts.append(f"{data}, %:\n\n{table_of_set}")
    if suite.costs:
        parts.append(f"Parameters, time and memory, means over the runs:\n\n{cost_table(found)}")
    told = found.told_rows()
    missing = [row.label for row in suite.rows_of(found.budget) if row not in told]
    if missing:
        parts.append(f"Not run at this budget: {'; '.join(missing)}.\n")
    weights = weights_table(found)
    if weights and "alpha" in suite.figures:
        parts.append(f"Mean scale weights α on the test images, finest scale first:\n\n{weights}")
    parts.append(f"All figures: [{name}.csv]({table}).\n")
    for figure in figures(found):
        picture = f"{FOLDER}/{name}-{figure.name}.svg"
        write_atomically(out / picture, figure.svg)
        parts.append(f"![{figure.caption}]({picture})\n\n{figure.caption}\n")
    return parts


def _setting(found: Found) -> str:
    """Budget, machines, versions, data: what must be known to read the table."""
    budget = ", ".join(f"{k} {v}" for k, v in found.suite.budgets[found.budget].items())
    lines = found.lines
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
    for data in found.suite.sets:
        prints = Counter(x["key"]["fingerprint"][:12] for x in lines if x["key"]["data"] == data)
        if len(prints) > 1:
            text.append(f"**Runs on different contents of {data} are mixed: {_counted(prints)}.**")
    if found.superseded:
        text.append(f"{found.superseded} earlier run(s) of the same cells are left out.")
    return "\n".join(text) + "\n"


def _counted(names: Counter[str]) -> str:
    """What there is, with the number of runs only if they differ."""
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{name} ({count} runs)" for name, count in sorted(names.items()))
