"""Errors that say what a user can do about them."""

from __future__ import annotations

import os
from pathlib import Path


class ScrdError(Exception):
    """The input or a setting cannot be used; the message names it and the cause."""


class ConfigError(ScrdError, ValueError):
    """A setting has no meaning; the message names it and says what it may be."""


class ImageError(ScrdError):
    """An image file that cannot be used.

    Attributes:
        path: The file.
        reason: Why, in a few words.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
