"""Images in, jobs out."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from scrd.serve import schemas
from scrd.serve.access import Asking, Readers, TheService, Writers
from scrd.serve.archives import unpack
from scrd.serve.events import encode
from scrd.serve.jobs import Job
from scrd.serve.service import Service
from scrd.serve.uploads import Received, Refused, receive

router = APIRouter(prefix="/v1", tags=["jobs"])

_FEW = 16  # files of a job whose results are read without another thread
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "PNG, JPEG, TIFF, DICOM, NIfTI, or a zip of these.",
                        },
                        "model": {
                            "type": "string",
                            "description": "Name of the model; by default the one that knows such "
                            "images.",
                        },
                    },
                }
            }
        },
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 128},
            "description": "The client's own name for the job. Sent again, no second job is made.",
        }
    ],
}


@router.post(
    "/score",
    status_code=202,
    response_model=schemas.Job,
    dependencies=[Writers],
    openapi_extra=_BODY,
    responses={
        408: {"description": "The body came too slowly."},
        413: {"description": "Too many files, too many bytes, or a zip that swells too much."},
        415: {"description": "Not multipart/form-data."},
        429: {"description": "The queue is full; Retry-After says when to try again."},
        507: {"description": "The disk is nearly full."},
    },
)
async def score(request: Request, response: Response, service: TheService, who: Asking) -> Any:
    """Take images; they are on the disk, and will be scored, when this answers."""
    headers = request.headers
    key = headers.get("idempotency-key")
    if key is not None:
        if not 0 < len(key) <= 128:
            raise Refused(400, "an Idempotency-Key has 1 to 128 characters")
        key = f"{who.name} {key}"
        earlier = await anyio.to_thread.run_sync(service.jobs.by_key, key)
        if earlier is not None:
            response.headers["location"] = f"/v1/jobs/{earlier.id}"
            return _job(service, earlier)
    if service.stopping:
        raise Refused(503, "the service is stopping", retry=30)
    if service.uploading >= service.limits.uploads or service.full():
        raise Refused(429, "the queue is full", retry=service.supervisor.wait_seconds())
    declared = headers.get("content-length", "")
    coming = int(declared) if declared.isdecimal() else 0
    limits = service.limits
    if coming <= limits.body_bytes and (service.store.free_bytes() - coming < limits.free_bytes):
        raise Refused(507, "the disk is nearly full")
    begun = time.monotonic()
    service.uploading += 1
    folder, accepted = None, False
    try:
        folder = service.jobs.begin()
        received = await receive(
            request.stream(),
            headers.get("content-type", ""),
            headers.get("content-length"),
            folder,
            limits,
        )
        model = received.fields.get("model") or None
        if model is not None and model not in service.models.table():
            raise Refused(422, "there is no model of this name")
        job = await anyio.to_thread.run_sync(_accept, service, received, who.name, model, key)
        accepted = True
    except OSError as error:
        raise Refused(507, f"the store takes no more: {error.strerror}") from None
    finally:
        service.uploading -= 1
        if folder is not None and not accepted:
            await anyio.to_thread.run_sync(service.drop, folder)
    service.metrics.uploaded(time.monotonic() - begun)
    service.supervisor.wake()
    service.events.publish({"event": "job", "job": job.id, "status": "queued", "done": 0, "of": 0})
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return _job(service, job)


def _accept(
    service: Service, received: Received, owner: str, model: str | None, key: str | None
) -> Job:
    unpack(received, service.limits)
    if not received.names:
        raise Refused(422, "no file was sent")
    return service.jobs.accept(
        received.folder, received.names, received.size, owner=owner, model=model, key=key
    )


@router.get("/jobs/{job}", response_model=schemas.Job, dependencies=[Readers])
async def get_job(
    job: str,
    service: TheService,
    wait: Annotated[
        float, Query(ge=0, le=45, description="Seconds to wait for its end before answering.")
    ] = 0,
) -> Any:
    """How far a job is; its results, when it is done."""
    ended = service.events.expect(job)
    try:
        found = service.jobs.get(job)
        if wait and found.status == "queued" and not service.stopping:
            with anyio.move_on_after(wait):
                await ended.wait()
            found = service.jobs.get(job)
    finally:
        service.events.no_longer(job, ended)
    if len(found.files) <= _FEW:
        return _job(service, found, results=True)
    return await anyio.to_thread.run_sync(partial(_job, service, found, results=True))


@router.get("/jobs/{job}/events", dependencies=[Readers])
async def job_events(job: str, service: TheService) -> StreamingResponse:
    """Server-sent events: how far the job is, until it has ended."""
    queue = service.events.listen()
    try:
        known = await anyio.to_thread.run_sync(service.jobs.get, job)
    except KeyError:
        service.events.forget(queue)
        raise
    if known.status != "queued":
        service.events.forget(queue)
        of = len(known.files)
        last = {"event": "job", "job": job, "status": known.status, "done": of, "of": of}
        return StreamingResponse(iter([encode(last)]), media_type="text/event-stream")
    return StreamingResponse(service.events.stream(queue, job), media_type="text/event-stream")


@router.get("/events", dependencies=[Readers])
async def events(service: TheService) -> StreamingResponse:
    """Server-sent events: what happens to all jobs and models."""
    stream = service.events.stream(service.events.listen())
    return StreamingResponse(stream, media_type="text/event-stream")


def _job(service: Service, job: Job, *, results: bool = False) -> dict[str, Any]:
    done, of = service.supervisor.progress.get(job.id, (0, len(job.files)))
    rows: list[dict[str, Any]] = []
    if results and job.status == "done":
        rows = service.results.of_job(job.id)
        done = of = sum(row["images"] for row in rows)
    scoring = job.status == "queued" and job.id in service.supervisor.progress
    return {
        "id": job.id,
        "status": "scoring" if scoring else job.status,
        "created": job.created,
        "ended": job.ended,
        "model": job.model,
        "files": len(job.files),
        "images_done": done,
        "images": of,
        "reason": job.reason,
        "notes": job.notes,
        "results": rows,
    }
