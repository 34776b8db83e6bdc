"""What could not be written beside the tables, gathered for one line a cause."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from scrd.outputs.pictures import why

# the place itself refuses: whatever comes next would fail too
_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass
class Lost:
    """What was lost, in words, and whether the place takes anything more.

    Attributes:
        reasons: sentences of others.
        disk_error: the first refusal of the place itself.
    """

    reasons: list[str] = field(default_factory=list)
    disk_error: OSError | None = None
    _first: dict[str, str] = field(default_factory=dict)
    _count: dict[str, int] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether nothing more should be tried beside the tables."""
        return self.disk_error is not None

    def add(self, what: str, error: Exception) -> None:
        """Take note of one; what failed for an equal cause is counted."""
        reason = why(error)
        if isinstance(error, OSError) and error.errno in _PLACE:
            self.disk_error = self.disk_error or error
        self._first.setdefault(reason, what)
        self._count[reason] = self._count.get(reason, 0) + 1

    def told(self) -> list[str]:
        """A sentence a cause."""
        sentences = []
        for reason, what in self._first.items():
            more = self._count[reason] - 1
            sentences.append(f"{what}{f' and {more} more' if more else ''}: {reason}")
        if self.full and sentences:
            sentences[-1] += "; what was to follow beside the tables was not tried"
        return [*self.reasons, *sentences]
