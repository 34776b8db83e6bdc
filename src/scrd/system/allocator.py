"""Keep freed memory for the next batch instead of handing it back to the system."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# numbers of glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_GROWTH = 64 << 20
_DYNAMIC_LIMIT = 32 << 20
_users = 0


@contextmanager
def reused_memory() -> Iterator[None]:
    """Within it, large blocks that are freed stay with the process.

    glibc maps each block of more than 32 MB afresh and unmaps it when it is freed. The activations
    of a convolutional network are such blocks, and on a CPU the page faults of writing to new ones
    can take longer than the arithmetic. The cost is that the process keeps its peak memory until
    the end of the block, when it is given back and the allocator's defaults hold again.

    Does nothing where the C library is not glibc, or where ``SCRD_ALLOCATOR`` is ``default``, for
    programs that this one is a part of. May be nested.
    """
    global _users
    wanted = os.environ.get("SCRD_ALLOCATOR") != "default"
    libc = ctypes.CDLL(None) if wanted and sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    if _users == 0:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_TOP_PAD, _GROWTH)
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if _users == 0:
            # the limits that the defaults, which adapt to what is freed, end at
            libc.mallopt(_MMAP_MAX, 65536)
            libc.mallopt(_MMAP_THRESHOLD, _DYNAMIC_LIMIT)
            libc.mallopt(_TRIM_THRESHOLD, 2 * _DYNAMIC_LIMIT)
            libc.mallopt(_TOP_PAD, 128 << 10)
            libc.malloc_trim(0)
