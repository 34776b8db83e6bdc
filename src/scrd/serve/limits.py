"""How much the service takes at once, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client, file or fault from stopping the others.

    Pixels of one image are bounded where images are read:
    :data:`scrd.data.formats.guard.MAX_PIXELS`.

    Attributes:
        body_bytes: of a request.
        files: of a request, those in a zip included.
        unzipped_bytes: of all files of a zip together.
        unzip_ratio: unpacked by packed bytes of a zip, beyond its first ``unzip_free_bytes``.
        unzip_free_bytes: unpacked bytes of which no ratio is asked: small volumes pack well.
        job_images: images of a job, the slices of volumes counted.
        waiting_jobs: jobs that wait or are being scored.
        waiting_bytes: their uploads together.
        uploads: requests whose bodies are read at the same time.
        free_bytes: of the disk that are never used up.
        idle_seconds: between two parts of a body.
        upload_seconds: for a whole body.
        request_seconds: for the answer to any other request.
        batch_images: images that the worker is given at once, from several jobs.
        crashes: how often the worker may die of a job before the job fails.
        silence_seconds: how long the worker may work on a job without a sign.
        load_seconds: how long a model may take to load.
        drain_seconds: for the job in hand, when the service is told to stop.
        streams: event streams that are open at the same time.
    """

    body_bytes: int = 2 << 30
    files: int = 5_000
    unzipped_bytes: int = 8 << 30
    unzip_ratio: float = 100.0
    unzip_free_bytes: int = 64 << 20
    job_images: int = 20_000
    waiting_jobs: int = 500
    waiting_bytes: int = 20 << 30
    uploads: int = 32
    free_bytes: int = 1 << 30
    idle_seconds: float = 30.0
    upload_seconds: float = 900.0
    request_seconds: float = 60.0
    batch_images: int = 32
    crashes: int = 3
    silence_seconds: float = 300.0
    load_seconds: float = 120.0
    drain_seconds: float = 30.0
    streams: int = 64
