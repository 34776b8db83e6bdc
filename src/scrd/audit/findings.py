"""The findings of `scrd check` as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scrd.audit.report import CheckReport, Family

_SHOWN = 10


def print_report(report: CheckReport, console: Console) -> None:
    """Print the findings as tables; lists are cut to ten rows, `to_dict` has all of them."""

    def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if not rows:
            return
        table = Table(*columns, title=title, title_justify="left")
        for row in rows[:_SHOWN]:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        if len(rows) > _SHOWN:
            console.print(f"and {len(rows) - _SHOWN} more, all in check.json")

    readable = report.images - len(report.unreadable)
    console.print(f"{report.root}: {report.images} images, {readable} readable", markup=False)
    show(
        "Unreadable files",
        ("file", "reason"),
        [(file.name, file.reason) for file in report.unreadable],
    )
    show(
        "Masks and boxes",
        ("image", "file", "what is odd", "used"),
        [(m.name, m.file, m.reason, "yes" if m.used else "no") for m in report.marks],
    )
    copies = ("files", "what was done to the first", "correlation", "copies in all")
    leaking = [family for family in report.families if family.is_leak]
    within = [f for f in report.families if not f.is_leak and not f.one_group]
    show("LEAK: copies in train and test", copies, [_row(family) for family in leaking])
    show(
        "LEAK: groups or patients in train and test",
        ("group", "train", "test"),
        [
            (g.group, f"{len(g.train)}: {g.train[0]}", f"{len(g.test)}: {g.test[0]}")
            for g in report.split_groups
        ],
    )
    show("Copies in one split that no group explains", copies, [_row(family) for family in within])
    expected = sum(not f.is_leak and f.one_group for f in report.families)
    if expected:
        console.print(f"{expected} sets of copies within one group each, as declared")
    show(
        "Copies with different labels",
        copies,
        [_row(family) for family in report.families if family.label_conflict],
    )
    show(
        "Properties",
        ("property", "images per value"),
        [
            (kind.name, ", ".join(f"{v}: {n}" for v, n in list(kind.counts.items())[:6]))
            for kind in report.properties
        ],
    )
    show(
        "Plain numbers, AUROC (0.5: no signal; 0.1 separates as well as 0.9)",
        ("number", "abnormal against normal, test", "test against train, normals"),
        [
            (c.name, _figure(c.test), _figure(c.shift))
            for c in report.confounds
            if {c.test, c.shift} - {None, 0.5}
        ],
    )
    for note in report.notes:
        style = "bold red" if note.startswith("LEAK") else None
        console.print(f"- {note}", style=style, markup=False)


def _row(family: Family) -> tuple[str, str, str, str]:
    """The closest pair of a set of copies, across the splits if it spans them."""
    link = max(family.links, key=lambda link: (link.crosses, link.similarity))
    train = set(family.train)
    files = "\n".join(
        f"{name} ({'train' if name in train else 'test'})" for name in (link.first, link.second)
    )
    counts = f"{len(family.train)} train, {len(family.test)} test"
    return files, link.relation, f"{link.similarity:.2f}", counts


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
