"""Errors that say what a user can do about them."""

from __future__ import annotations

import os
from pathlib import Path


class ScrdError(Exception):
    """The input or a setting cannot be used; the message names it and the cause."""


class ConfigError(ScrdError, ValueError):
    """A setting has no meaning; the message names it and says what it may be."""


class _PlaceError(ScrdError):
    """An error of a file or folder; the message begins with it."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ImageError(_PlaceError):
    """An image file that cannot be used.

    Attributes:
        path: The file.
        reason: Why, in a few words.
    """


class ManifestError(_PlaceError):
    """A data set whose description is missing or contradicts itself.

    Attributes:
        path: The folder or CSV file.
        reason: What is wrong, with the line for a CSV file.
    """
