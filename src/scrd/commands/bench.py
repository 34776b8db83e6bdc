"""The commands of `scrd bench`. Heavy modules are imported inside each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scrd.commands.common import Threads
from scrd.system.console import SKIPPED, err, out, refusing

app = typer.Typer(
    no_args_is_help=True, help="Compare methods on data sets; resumable, tables from one file."
)


def _say(line: str) -> None:
    out.print(line)


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A bundled suite (`scrd bench list`) or a TOML.")],
    data: Annotated[Path, typer.Argument(help="Folder that holds the data sets' folders.")],
    results: Annotated[Path, typer.Option("--results", help="File to add the runs to.")],
    budget: Annotated[
        str, typer.Option(help="paper, shipped, standard, cpu, small, or the suite's own.")
    ] = "paper",
    sets: Annotated[list[str] | None, typer.Option("--set", help="Only this data set.")] = None,
    rows: Annotated[
        list[str] | None, typer.Option("--row", help="Only the row of this label.")
    ] = None,
    methods: Annotated[list[str] | None, typer.Option("--method", help="Only this method.")] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Instead of the suite's.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights of the budget's teacher: a file, or 'random'.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Threads = None,
) -> None:
    """Do the runs of a suite that the results file lacks.

    Exit code 1 when a run failed; the others are done all the same.
    """
    from scrd.bench.runner import run_missing
    from scrd.bench.suite_file import read_suite
    from scrd.system.files import try_folder

    with refusing():
        try_folder(results.absolute().parent)
        wanted = read_suite(suite).runs(
            budget,
            sets=sets or (),
            rows=rows or (),
            methods=methods or (),
            seeds=seeds or (),
            weights=weights,
        )
        problems = run_missing(wanted, data, results, device=device, say=_say, progress=True)
    out.print(f"{len(wanted) - len(problems)} of {len(wanted)} runs are in {results}")
    if problems:
        err.print(f"[bold yellow]{len(problems)} run(s) failed:[/]", markup=True)
        for problem in problems:
            err.print(f"  {problem}")
        raise typer.Exit(SKIPPED)


@app.command(name="list")
def list_suites() -> None:
    """Name the bundled suites."""
    from rich.table import Table

    from scrd.bench.budgets import BUDGETS
    from scrd.bench.suite_file import bundled_suites, read_suite

    table = Table(title=f"Runs of the budgets {', '.join(BUDGETS)}")
    table.add_column("suite", no_wrap=True)
    for title in ("what", "runs", "not implemented"):
        table.add_column(title)
    with refusing():
        for name in bundled_suites():
            suite = read_suite(name)
            absent = [row.label for row in suite.rows if row.method is None]
            counts = ", ".join(str(len(suite.runs(budget))) for budget in BUDGETS)
            table.add_row(name, suite.title, counts, ", ".join(absent))
    out.print(table)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Results files.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    suites: Annotated[
        list[str] | None, typer.Option("--suite", help="Only this suite, bundled or a TOML.")
    ] = None,
) -> None:
    """Write results.md with the tables and figures of all suites that the results know."""
    from scrd.bench.page import write_page
    from scrd.bench.results import ResultsError
    from scrd.bench.suite_file import bundled_suites, read_suite
    from scrd.system.files import try_folder

    with refusing():
        try_folder(out_folder)
        for path in results:
            if not path.is_file():
                raise ResultsError(f"{path}: no such file")
        # the paper's tables first, then its figures
        bundled = sorted(
            bundled_suites(),
            key=lambda name: (not name.startswith("paper-table"), not name.startswith("paper-")),
        )
        chosen = [read_suite(name) for name in suites or bundled]
        damaged = write_page(results, chosen, out_folder)
    for problem in damaged:
        err.print(problem)
    out.print(f"page: {out_folder / 'results.md'}")
