"""What all commands share: where they write, how they refuse, with which code they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

SKIPPED = 1
"""Exit code: the work is done, but files were skipped (for `check`: or there is a leak) or runs
failed."""
REFUSED = 2
"""Exit code: the input or a setting cannot be used; nothing was written."""
INTERRUPTED = 130
"""Exit code: a training was interrupted and can go on."""


@contextmanager
def refusing() -> Iterator[None]:
    """End with a message and a code of its own where the input or a setting cannot be used."""
    from scrd.errors import ScrdError

    try:
        yield
    except ScrdError as e:
        err.print("[bold red]error:[/]", end=" ")
        err.print(str(e), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(REFUSED) from e
