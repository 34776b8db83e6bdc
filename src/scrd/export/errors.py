"""What can go wrong with an export, and packages that are there only for exports."""

from __future__ import annotations

import importlib
from typing import Any

from scrd.errors import ScrdError
from scrd.system.extras import needs


class ExportError(ScrdError):
    """An export cannot be made or read; the message names the file or figure and the cause."""


def package(name: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        ExportError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name != name:
            raise
        raise ExportError(needs(f"the package {name}, which is not installed,", extra)) from e
