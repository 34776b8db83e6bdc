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
        threading.Thread(target=self._read, name="scrd-line", daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message.get("do") == "rest":
                self.resting.set()
            else:
                self._messages.put(message)
        os._exit(0)

    def next(self) -> Message:
        """The next message of the server; waits for one."""
        return self._messages.get()

    def tell(self, **message: Any) -> None:
        """Send a message; ends the process where nobody listens."""
        with self._mutex:
            try:
                self._out.write(json.dumps(message) + "\n")
                self._out.flush()
            except OSError:
                os._exit(0)
