"""Models on their way into the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scrd.errors import ScrdError
from scrd.serve.child import Child
from scrd.serve.models import Models

log = logging.getLogger("scrd.serve")


class Loading:
    """What a worker was asked to load and has not answered yet.

    Args:
        models: where a version that was loaded is known.
        wanted: names and folders that the service was started with.
        on_fatal: called when one of these cannot be loaded at the start.

    Attributes:
        fatal: why not.
    """

    def __init__(
        self, models: Models, wanted: Sequence[tuple[str, Path]], on_fatal: Callable[[], None]
    ) -> None:
        self.fatal = ""
        self._models, self._wanted, self._on_fatal = models, list(wanted), on_fatal
        self._waiting: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._started = False

    def __bool__(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._waiting)

    async def begin(self, worker: Child) -> None:
        """Have a new worker load all that is wanted, and what was loaded over HTTP since."""
        remembered = [(v.name, v.folder) for v in self._models.worth_loading()]
        for name, folder in dict.fromkeys([*self._wanted, *remembered]):
            await self.ask(worker, name, folder)

    async def ask(self, worker: Child, name: str, folder: Path) -> asyncio.Future[str]:
        """Have a version loaded; its fingerprint comes by and by, or a ScrdError."""
        key = (name, str(folder))
        if key not in self._waiting:
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            # perhaps nobody waits for it
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
            self._waiting[key] = future
            await worker.tell(do="load", name=name, folder=str(folder))
        return self._waiting[key]

    async def heard(self, message: dict[str, Any]) -> None:
        """The worker has loaded one, or could not."""
        name, folder = message["name"], Path(message["folder"])
        given = (name, folder) in self._wanted
        future = self._waiting.pop((name, message["folder"]), None)
        if message["say"] == "loaded":
            fingerprint = message["fingerprint"]
            silence = message["silence"]
            await asyncio.to_thread(
                self._models.add, name, folder, fingerprint, silence, given=given
            )
            log.info("model %s: version %s is loaded", name, fingerprint[:12])
            if future is not None:
                future.set_result(fingerprint)
        else:
            reason = message["reason"]
            log.error("model %s: %s", name, reason)
            if given and not self._started:
                self.fatal = f"model {name}: {reason}"
                self._on_fatal()
            if future is not None:
                future.set_exception(ScrdError(reason))
        self._started = self._started or not self._waiting

    def lost(self, why: str) -> None:
        """The worker is dead."""
        for future in self._waiting.values():
            future.set_exception(ScrdError(why))
        self._waiting.clear()
