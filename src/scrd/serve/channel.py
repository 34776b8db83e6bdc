"""The other end of the server's line to a child process: JSON, a line a message.

A child ends at once when its server does: nothing that it would still write could count.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


class Channel:
    """Messages of the server, and to it; made first thing in the child's main thread.

    Attributes:
        resting: set when the server wants nothing more to be begun.
    """

    def __init__(self) -> None:
        # what a library prints must not come between the messages
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        # Ctrl-C reaches the whole group; when to end is the server's business
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self._mutex = threading.Lock()
        self.resting = threading.Event()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._after: Message | None = None  # taken from the queue, and not yet given out
        threading.Thread(target=self._read, name="scrd-line", daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message.get("do") == "rest":
                self.resting.set()
            else:
                self._messages.put(message)
        os._exit(0)

    def next(self, together: Callable[[Message, Message], bool] | None = None) -> Message:
        """The next message of the server; waits for one.

        Args:
            together: takes a message that waits behind into the one before it, and says whether
                it did.
        """
        message, self._after = self._after or self._messages.get(), None
        while together is not None and self._after is None and not self._messages.empty():
            later = self._messages.get()
            if not together(message, later):
                self._after = later
        return message

    def tell(self, **message: Any) -> None:
        """Send a message; ends the process where nobody listens."""
        with self._mutex:
            try:
                self._out.write(json.dumps(message) + "\n")
                self._out.flush()
            except OSError:
                os._exit(0)
