"""Where a fault of the software is, told without the exception's text, which may quote a header."""

from __future__ import annotations

import traceback
from pathlib import Path


def where(error: BaseException) -> str:
    """Type of an exception, and the last places on its way."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = ", ".join(f"{Path(f.filename).name} line {f.lineno}" for f in reversed(frames))
    return f"{type(error).__name__} in {places or 'an unknown place'}"
