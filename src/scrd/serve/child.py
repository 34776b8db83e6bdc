"""A child process of the server, seen from the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

_LONGEST_LINE = 64 << 20


class Child:
    """A running child: told and heard in messages, a JSON object a line.

    Attributes:
        pid: of the process.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Child:
        """Start ``python -m MODULE ARGUMENTS``; its standard error is the server's."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        return cls(process)

    async def tell(self, **message: Any) -> None:
        """Send a message; one to a child that died is lost."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None when the child is dead."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def end(self) -> str:
        """See to it that the child is dead; returns how it died, in words."""
        if self._process.returncode is None:
            # Popen.kill would look first whether it is dead, and take its exit code away
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        code = await self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def memory_bytes(self) -> int:
        """That it holds; 0 where the system does not say."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")
