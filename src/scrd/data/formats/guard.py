"""One sentence about a broken medical image file, never a word out of the file itself."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from scrd.data.formats.info import Refused
from scrd.errors import ImageError

MAX_PIXELS = 100_000_000
"""Pixels of an image, at the most, unless a caller allows more."""


@contextmanager
def refusing(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside the block into an `ImageError`.

    The libraries' own messages quote values of the header, which may be a patient's name or date
    of birth; so of an unforeseen exception nothing is told but when it came.

    Args:
        path: The file.
        what: What is being done with it, "reading the header".

    Raises:
        ImageError: For every exception but itself.
    """
    try:
        yield
    except ImageError:
        raise
    except Refused as error:
        raise ImageError(path, str(error)) from None
    except FileNotFoundError:
        raise ImageError(path, "no such file") from None
    except PermissionError:
        raise ImageError(path, "no permission to read it") from None
    except IsADirectoryError:
        raise ImageError(path, "a folder, not an image") from None
    except MemoryError:
        raise ImageError(path, f"not enough memory for {what}") from None
    except RecursionError:
        raise ImageError(path, "broken: sequences nested too deep") from None
    except EOFError:
        raise ImageError(path, f"truncated: the file ended while {what}") from None
    except (zlib.error, gzip.BadGzipFile):
        raise ImageError(path, "broken: its compressed content is damaged") from None
    except Exception:
        raise ImageError(path, f"broken: found to contradict its format while {what}") from None
