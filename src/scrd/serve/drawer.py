"""The process that draws: one file after another, as the server asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from scrd.errors import ScrdError
from scrd.serve import drawing
from scrd.serve.channel import Channel
from scrd.serve.described import DescribedScorer, read_description
from scrd.serve.faults import where
from scrd.system.threads import wait_politely

_DRAW: dict[str, Callable[..., None]] = {
    "thumbnail": drawing.thumbnail,
    "source": drawing.source_picture,
    "overlay": drawing.overlay,
    "map": drawing.raw_map,
    "volume": drawing.volume_map,
    "view": drawing.view,
    "dicom": drawing.dicom,
}
_PATHS = ("path", "folder", "maps")


def main(store: str) -> None:
    """The process: ``python -m scrd.serve.drawer STORE``."""
    channel = Channel()
    wait_politely()

    @lru_cache(maxsize=32)
    def model(fingerprint: str) -> DescribedScorer:
        return DescribedScorer(read_description(Path(store) / "models", fingerprint))

    while True:
        message = channel.next()
        ticket, what = message.pop("ticket"), message.pop("what")
        try:
            arguments: dict[str, Any] = {
                name: Path(value) if name in _PATHS else value for name, value in message.items()
            }
            fingerprint = arguments.pop("fingerprint")
            arguments["path"].parent.mkdir(exist_ok=True, mode=0o700)
            _DRAW[what](model=model(fingerprint), **arguments)
        except Exception as error:
            channel.tell(
                ticket=ticket, error=_told(error), known=isinstance(error, drawing.Nothing)
            )
        else:
            channel.tell(ticket=ticket, error=None)


def _told(error: Exception) -> str:
    """In words of ours: other messages may quote a header or a path."""
    if isinstance(error, drawing.Nothing):
        return str(error)
    if isinstance(error, ScrdError):
        return str(getattr(error, "reason", "it cannot be read again"))
    return where(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
