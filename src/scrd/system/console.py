"""What all commands share: where they write, how they refuse, with which code they end."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup


class Screen(Console):
    """A console that takes what it can show, and costs no command its results.

    Text is printed as it is, brackets included, unless ``markup`` is asked for. Where the reader
    has left or the stream's disk is full, the rest is not printed, and the command goes on.
    """

    def print(self, *objects: Any, markup: bool | None = None, **options: Any) -> None:
        """As rich's, but without markup unless it is asked for."""
        if all(isinstance(o, str) for o in objects):
            options.setdefault("soft_wrap", True)
        try:
            super().print(*objects, markup=bool(markup), **options)
        except OSError:
            self.on_broken_pipe()
        except UnicodeEncodeError:
            shown = [
                str(o).encode("ascii", "backslashreplace").decode() if isinstance(o, str) else o
                for o in objects
            ]
            with suppress(UnicodeError):
                super().print(*shown, markup=bool(markup), **options)

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self.quiet = True
        _silence(sys.stderr if self.stderr else sys.stdout)


out = Screen(highlight=False)
err = Screen(stderr=True, highlight=False)

SKIPPED = 1
"""Exit code: the work is done, but files were skipped (for `check`: or there is a leak), results
could not be written, or runs failed."""
REFUSED = 2
"""Exit code: the input, a setting or an output place cannot be used; the work is not done."""
BROKEN = 3
"""Exit code: a fault of the software stopped the command; what was written so far is kept."""
DRIFTED = 4
"""Exit code: the work is done, and `monitor` or `status` has raised an alarm of drift."""
DEAD = 5
"""Exit code: `status` finds a watch that does not live."""
STUCK = 6
"""Exit code: `status` finds a watch that lives, but gets no further."""
INTERRUPTED = 130
"""Exit code: stopped by Ctrl-C."""


@contextmanager
def refusing() -> Iterator[None]:
    """End with a message and a code of its own where an input, setting or place cannot be used."""
    from scrd.errors import ScrdError
    from scrd.system.files import cause

    try:
        yield
    except ScrdError as e:
        fail(str(e))
        raise typer.Exit(REFUSED) from e
    except OSError as e:
        fail(cause(e))
        raise typer.Exit(REFUSED) from e


def fail(message: str) -> None:
    """Print an error in a line."""
    err.print("[bold red]error:[/]", end=" ", markup=True)
    err.print(message)


# typer brings a copy of click along: this is its ClickException
_USAGE: type[Exception] = typer.BadParameter.__mro__[2]


class Commands(TyperGroup):
    """Commands that all end alike: see the exit codes above."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever stops it is told, with an exit code that says so."""
        from scrd.system.extras import missing

        try:
            with refusing():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, EOFError, _USAGE):
            raise
        except ModuleNotFoundError as e:
            told = missing(e)
            if told is None:
                _tell_fault(e)
                raise typer.Exit(BROKEN) from e
            fail(told)
            raise typer.Exit(REFUSED) from None
        except MemoryError as e:
            fail("there is not enough memory")
            raise typer.Exit(REFUSED) from e
        except Exception as e:
            _tell_fault(e)
            raise typer.Exit(BROKEN) from e


def _tell_fault(error: Exception) -> None:
    """For whoever mends it: where the fault is; never what a header held."""
    lines = traceback.extract_tb(error.__traceback__)
    for place in lines[-6:]:
        err.print(f"  {place.filename}, line {place.lineno}, in {place.name}")
    fail(
        f"a fault of the software stopped this command ({type(error).__name__}); what was written "
        "so far is kept"
    )


def steady_streams() -> None:
    """Let standard output and error take every letter, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush_streams() -> None:
    """Empty the streams; where one takes nothing, the interpreter shall not complain either."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _silence(stream)


def _silence(stream: Any) -> None:
    with suppress(AttributeError, ValueError, OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
