"""Arguments that several commands share, and the end that they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrd.system.console import INTERRUPTED, SKIPPED, err, out
from scrd.system.threads import use_threads

if TYPE_CHECKING:
    from scrd.data.manifest import Manifest
    from scrd.errors import ImageError
    from scrd.scoring.calibration import Calibration

Data = Annotated[Path, typer.Argument(help="Folder of images, folder tree, or split.csv.")]
Model = Annotated[Path, typer.Argument(help="Model folder.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a batch.")]
# acts when the options are read, before a command imports what it acts on
Threads = Annotated[
    int | None,
    typer.Option(min=1, callback=use_threads, help="Threads that compute; by default one a core."),
]


def print_counts(manifest: Manifest) -> None:
    """Say how a data set was understood, before anything is done with it."""
    text = f"{manifest.root}: {manifest.counts}"
    out.print(text)


def report_skipped(failures: Sequence[ImageError], unwritten: Sequence[str] = ()) -> None:
    """Name every file that was skipped or not written, and end with a code that says so."""
    for reason in unwritten:
        err.print("[bold yellow]not written:[/]", end=" ", markup=True)
        err.print(reason)
    if failures:
        err.print(f"[bold yellow]{len(failures)} image(s) skipped:[/]", markup=True)
        for failure in failures:
            err.print(f"  {failure}")
    if failures or unwritten:
        raise typer.Exit(SKIPPED)


def report_silence(calibration: Calibration) -> None:
    """Say so where a model can flag nothing."""
    if calibration.silence:
        err.print("[bold yellow]warning:[/]", end=" ", markup=True)
        err.print(calibration.silence)


@contextmanager
def saying_how_to_go_on(how: str) -> Iterator[None]:
    """End with one line and a code of its own where a training is interrupted."""
    from scrd.training.log import TrainingInterrupted

    try:
        yield
    except KeyboardInterrupt as e:
        at = f" at iteration {e.done} of {e.total}" if isinstance(e, TrainingInterrupted) else ""
        err.print(f"interrupted{at}; {how}")
        raise typer.Exit(INTERRUPTED) from None


def try_results(folder: Path, inputs: Iterable[Path | str]) -> None:
    """See before the work whether results can go to a folder.

    Raises:
        PlaceError: it cannot be written to, lies among the input, or holds results of other runs.
    """
    from scrd.outputs.result_folder import ResultFolder
    from scrd.system.files import try_folder

    try_folder(folder, outside=[Path(place) for place in inputs if "://" not in str(place)])
    ResultFolder(folder)


def parse_kinds(text: str | None) -> tuple[str, ...]:
    """The names between the commas."""
    if not text:
        return ()
    from scrd.dicom.write import check_kinds

    return check_kinds([name.strip() for name in text.split(",") if name.strip()])
