"""What happens, told to everybody who listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from scrd.serve.uploads import Refused

ENDED = ("done", "failed")
_BEHIND = 256  # events that a listener may be behind
_BEAT = 15.0  # seconds between two signs of life


class Events:
    """Listeners, each with a queue of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def publish(self, event: dict[str, Any]) -> None:
        """Tell all listeners; one that is too far behind is told to look anew."""
        if event.get("status") in ENDED:
            for waiting in self._waiting.pop(event["job"], ()):
                waiting.set()
        for queue in self._queues:
            if queue.qsize() >= _BEHIND:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait({"event": "missed"})
            queue.put_nowait(event)

    def publish_soon(self, event: dict[str, Any]) -> None:
        """The same, from another thread than that of the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.publish, event)

    def listen(self) -> asyncio.Queue[dict[str, Any] | None]:
        """Begin to listen.

        Raises:
            Refused: too many do.
        """
        if len(self._queues) >= self._most:
            raise Refused(503, f"more than {self._most} event streams are open", retry=30)
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.add(queue)
        return queue

    def expect(self, job: str) -> asyncio.Event:
        """What is set when a job ends, from now on; see `no_longer`."""
        waiting = asyncio.Event()
        self._waiting.setdefault(job, set()).add(waiting)
        return waiting

    def no_longer(self, job: str, waiting: asyncio.Event) -> None:
        """Expect the end of a job no more."""
        others = self._waiting.get(job, set())
        others.discard(waiting)
        if not others:
            self._waiting.pop(job, None)

    def forget(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        """Do not listen any more."""
        self._queues.discard(queue)

    async def stream(
        self, queue: asyncio.Queue[dict[str, Any] | None], job: str | None = None
    ) -> AsyncIterator[bytes]:
        """Server-sent events, until the service stops or, of a job, until that has ended."""
        try:
            yield b"retry: 2000\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _BEAT)
                except asyncio.TimeoutError:
                    yield b": still here\n\n"
                    continue
                if event is None:
                    return
                if job is not None and event.get("job") not in (job, None):
                    continue
                yield encode(event)
                if job is not None and event.get("status") in ENDED:
                    return
        finally:
            self.forget(queue)

    def close(self) -> None:
        """End all streams."""
        for queue in self._queues:
            queue.put_nowait(None)
        for job in list(self._waiting):
            for waiting in self._waiting.pop(job):
                waiting.set()


def encode(event: dict[str, Any]) -> bytes:
    """As a server-sent event."""
    return f"event: {event['event']}\ndata: {json.dumps(event)}\n\n".encode()
