"""What cannot be watched."""

from __future__ import annotations

from scrd.errors import ScrdError


class MonitorError(ScrdError):
    """A table of scores cannot be used; the message names the file and the cause."""
