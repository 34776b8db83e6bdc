"""Has pictures drawn, one at a time, in a process that may die of them."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from scrd.serve.child import Child
from scrd.serve.uploads import Refused


class Artist:
    """The drawing process: started when it is first needed, again when it died."""

    def __init__(self, store: Path, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._turn = asyncio.Lock()
        self._child: Child | None = None
        self._tickets = itertools.count()

    async def draw(self, what: str, path: Path, **arguments: Any) -> Path:
        """Have a file drawn, unless it is there.

        Args:
            what: see :mod:`scrd.serve.drawer`.
            path: of the file.
            arguments: of the drawing.

        Returns:
            The file.

        Raises:
            Refused: it cannot be drawn.
        """
        if path.exists():
            return path
        async with self._turn:
            if path.exists():
                return path
            if self._child is None:
                self._child = await Child.start("scrd.serve.drawer", str(self._store))
            ticket = next(self._tickets)
            await self._child.tell(ticket=ticket, what=what, path=str(path), **arguments)
            try:
                answer = await asyncio.wait_for(self._answer(ticket), self._seconds)
            except asyncio.TimeoutError:
                await self.close()
                raise Refused(504, "drawing took too long") from None
            if answer is None:
                await self.close()
                raise Refused(500, "the process that draws died of it")
        if answer["error"]:
            raise Refused(404 if answer["known"] else 422, answer["error"])
        return path

    async def _answer(self, ticket: int) -> dict[str, Any] | None:
        assert self._child is not None
        while True:
            answer = await self._child.hear()
            if answer is None or answer["ticket"] == ticket:
                return answer

    async def warm(self) -> None:
        """Start the process before it is needed."""
        async with self._turn:
            if self._child is None:
                self._child = await Child.start("scrd.serve.drawer", str(self._store))

    async def close(self) -> None:
        """End the process."""
        if self._child is not None:
            child, self._child = self._child, None
            await child.end()
