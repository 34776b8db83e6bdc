"""What goes when it is old, or when there is no room."""

from __future__ import annotations

import logging
import os
import time

from scrd.serve.jobs import Jobs
from scrd.serve.store import Store

log = logging.getLogger("scrd.serve")


def forget_old(store: Store, jobs: Jobs, *, days: float, gigabytes: float) -> int:
    """Delete jobs that ended long ago, and then the oldest ones until the rest has room.

    Args:
        store: whose.
        jobs: of the store.
        days: how long a job is kept after its end.
        gigabytes: 1e9 bytes, of uploads, maps and pictures together.

    Returns:
        How many jobs went. Those that wait are never among them, and marks stay.
    """
    ended = store.rows("SELECT id, ended FROM jobs WHERE status != 'queued' ORDER BY ended, rowid")
    before = time.time() - days * 86400
    old = [row["id"] for row in ended if row["ended"] < before]
    for job in old:
        jobs.delete(job)
    sizes = {row["id"]: _bytes(store, row["id"]) for row in ended[len(old) :]}
    held = sum(sizes.values()) + jobs.waiting().bytes
    gone = len(old)
    for job, size in sizes.items():
        if held <= gigabytes * 1e9:
            break
        jobs.delete(job)
        held -= size
        gone += 1
    if gone:
        log.info("%d jobs went: %d after %g days, the others for room", gone, len(old), days)
    return gone


def _bytes(store: Store, job: str) -> int:
    total = 0
    for place in (store.uploads, store.results):
        for parent, _, files in os.walk(place / job):
            total += sum(os.lstat(os.path.join(parent, name)).st_size for name in files)
    return total
