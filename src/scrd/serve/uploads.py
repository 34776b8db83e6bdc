"""Bodies of requests to files: streamed, counted while they come, under names of our own.

What a client calls a file is kept as a text and never becomes a path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import anyio
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from scrd.serve.limits import Limits

_FIELD_BYTES = 4096
_NAME_CHARACTERS = 1024


class Refused(Exception):
    """A request that is not taken.

    Attributes:
        status: of HTTP.
        reason: a sentence, without anything of the request's content.
        retry: seconds after which it may be tried again; None where that would not help.
    """

    def __init__(self, status: int, reason: str, retry: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry = retry


class Received:
    """The files and fields of a multipart body.

    Attributes:
        folder: where the files lie, as ``0``, ``1``, ...
        names: what the client calls them.
        fields: the other parts, as text.
        size: bytes of the files.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.names: list[str] = []
        self.fields: dict[str, str] = {}
        self.size = 0
        self.ended = False
        self._limits = limits
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._file: BinaryIO | None = None
        self._field: str | None = None
        self._content = b""

    def _part_begin(self) -> None:
        self._headers, self._header, self._value = {}, b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise Refused(400, "a part of the form has no name")
        if b"filename" in options:
            if len(self.names) >= self._limits.files:
                raise Refused(413, f"more than {self._limits.files} files")
            name = text_of(options[b"filename"])
            self._file = open(self.folder / str(len(self.names)), "wb")  # noqa: SIM115
            self.names.append(name)
        else:
            if len(self.fields) >= 16:
                raise Refused(400, "more than 16 fields")
            self._field, self._content = text_of(options[b"name"]), b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            self.size += end - start
        else:
            self._content += data[start:end]
            if len(self._content) > _FIELD_BYTES:
                raise Refused(413, f"a field of more than {_FIELD_BYTES} bytes")

    def _part_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._field is not None:
            self.fields[self._field] = text_of(self._content)

    def _end(self) -> None:
        self.ended = True

    def close(self) -> None:
        """Let go of a file whose part did not end."""
        if self._file is not None:
            self._file.close()


def text_of(name: bytes) -> str:
    """A client's text, fit to be kept and shown: no control character, no end of line."""
    text = name.decode("utf-8", "replace")[:_NAME_CHARACTERS]
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


async def receive(
    stream: AsyncIterator[bytes],
    content_type: str,
    content_length: str | None,
    folder: Path,
    limits: Limits,
) -> Received:
    """Write the files of a multipart body into a folder.

    Args:
        stream: the body, as it comes.
        content_type: of the request.
        content_length: of the request, where it says so.
        folder: empty.
        limits: what may come.

    Returns:
        The files; not yet safe from a loss of power.

    Raises:
        Refused: too large, too slow, or no such body.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise Refused(415, "send files as multipart/form-data")
    if not options.get(b"boundary"):
        raise Refused(400, "the multipart body names no boundary")
    if content_length is not None:
        if not content_length.isdecimal():
            raise Refused(400, "the content length is no number")
        if int(content_length) > limits.body_bytes:
            raise Refused(413, _too_large(limits))
    found = Received(folder, limits)
    events = (
        "part_begin", "part_data", "part_end", "header_field", "header_value", "header_end",
        "headers_finished", "end",
    )  # fmt: skip
    callbacks = {f"on_{event}": getattr(found, f"_{event}") for event in events}
    came = 0
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        with anyio.fail_after(limits.upload_seconds):
            while True:
                with anyio.fail_after(limits.idle_seconds):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                came += len(chunk)
                if came > limits.body_bytes:
                    raise Refused(413, _too_large(limits))
                parser.write(chunk)
    except TimeoutError:
        raise Refused(408, "the body came too slowly") from None
    except FormParserError:
        raise Refused(400, "the multipart body is broken") from None
    finally:
        found.close()
    if not found.ended:
        raise Refused(400, "the multipart body ends too early")
    if not found.names:
        raise Refused(422, "no file was sent: a file is a part with a file name")
    return found


def _too_large(limits: Limits) -> str:
    return f"a body of more than {limits.body_bytes:,} bytes"
