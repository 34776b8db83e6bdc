"""Progress bars on the terminal, silent where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from scrd.training.log import LogEntry


def _progress(enabled: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
        console=Console(stderr=True),
        disable=not enabled,
    )


@contextmanager
def counting(label: str, total: int, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A bar that counts images; yields a function that is told how many are done."""
    with _progress(enabled) as progress:
        task = progress.add_task(label, total=total, info="")
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def training_bar(total: int, enabled: bool) -> Iterator[Callable[[LogEntry], None]]:
    """A bar over iterations with loss, scale weights and images/s; yields a log callback."""
    with _progress(enabled) as progress:
        task = progress.add_task("training", total=total, info="")

        def on_log(entry: LogEntry) -> None:
            alpha = " ".join(f"{a:.2f}" for a in entry.scale_weights)
            info = f"loss {entry.loss:.4f}  α {alpha}  {entry.images_per_second:.0f} images/s"
            progress.update(task, completed=entry.iteration, info=info)

        yield on_log
