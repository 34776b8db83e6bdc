"""How the service does: health, metrics, models, sessions, audit."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from scrd.serve import schemas
from scrd.serve.access import Asking, Managers, Readers, TheService
from scrd.serve.auth import COOKIE, SESSION_SECONDS
from scrd.serve.models import Version, sibling
from scrd.serve.service import Service
from scrd.serve.uploads import Refused
from scrd.system.version import __version__

router = APIRouter(tags=["service"])


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Answers as long as the process lives."""
    return "alive\n"


@router.get("/readyz")
def readyz(service: TheService) -> JSONResponse:
    """Whether images are taken: a model is loaded, the queue has room, the disk too."""
    reasons = service.not_ready()
    return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


@router.get("/metrics", response_class=PlainTextResponse, dependencies=[Readers])
def metrics(service: TheService) -> Response:
    """Figures for Prometheus."""
    service.metrics.watch_well.clear()  # one may be gone
    for name, well in service.watches.well().items():
        service.metrics.watch_well.labels(name).set(well)
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/state", response_model=schemas.State, dependencies=[Readers])
def state(service: TheService) -> Any:
    """What the page tells of the service."""
    midnight = time.mktime((*time.localtime()[:3], 0, 0, 0, 0, 0, -1))
    tenths = [0] * 10
    for _, p in service.results.p_values(last=1000):
        tenths[min(9, int(10 * p))] += 1
    reasons = service.not_ready()
    limits = service.limits
    return {
        "ready": not reasons,
        "reasons": reasons,
        "version": __version__,
        "started": service.started,
        "queued": service.jobs.waiting().jobs,
        "today": service.results.counts(midnight),
        "refusals": service.results.refusals(midnight),
        "failed": [
            {"id": job.id, "ended": job.ended, "files": len(job.files), "reason": job.reason}
            for job in service.jobs.failed(midnight)
        ],
        "p_values": tenths,
        "models": [_version(service, v) for v in service.models.versions()],
        "limits": {"body_bytes": limits.body_bytes, "files": limits.files},
    }


@router.get("/v1/models", response_model=list[schemas.VersionOut], dependencies=[Readers])
def models(service: TheService) -> Any:
    """All versions of all models."""
    return [_version(service, v) for v in service.models.versions()]


@router.post(
    "/v1/models/{name}", response_model=schemas.VersionOut, dependencies=[Managers], status_code=201
)
async def load(name: str, body: schemas.LoadBody, service: TheService) -> Any:
    """Load a new version beside the old one; it rests until it is told to answer."""
    known = service.models.versions(name)
    if not known:
        raise Refused(404, "there is no model of this name")
    fingerprint = await service.supervisor.load(name, sibling(known, body.folder))
    return _version(service, _find(service, name, fingerprint))


@router.put(
    "/v1/models/{name}/{fingerprint}",
    response_model=schemas.VersionOut,
    dependencies=[Managers],
)
def assign(name: str, fingerprint: str, body: schemas.RoleBody, service: TheService) -> Any:
    """Let a version answer, try it beside, or let it rest; to roll back, let the old one answer."""
    try:
        service.models.assign(name, fingerprint, body.role)
    except ValueError as error:
        raise Refused(409, str(error)) from None
    service.events.publish_soon({"event": "models"})
    return _version(service, _find(service, name, fingerprint))


@router.get("/v1/models/{name}/comparison", dependencies=[Readers])
def comparison(name: str, service: TheService) -> list[dict[str, Any]]:
    """What answered beside what was on trial, result by result."""
    return service.results.compared(name)


@router.get("/v1/models/{name}/drift", response_model=schemas.Drift, dependencies=[Readers])
def drift(name: str, service: TheService) -> Any:
    """Whether what the version that answers was sent has drifted."""
    return asdict(service.drifts.of(name))


@router.get("/v1/watches", response_model=list[schemas.Watch], dependencies=[Readers])
def watches(service: TheService) -> Any:
    """How each `scrd watch` is that the service was told of, and what it did today."""
    return [asdict(one) for one in service.watches.look()]


@router.post("/v1/session", response_model=schemas.Session)
def sign_in(
    body: schemas.TokenBody, request: Request, response: Response, service: TheService
) -> Any:
    """Sign in on the page with a token."""
    who = service.auth.by_token(body.token.strip())
    if service.auth.open:
        raise Refused(409, "there are no tokens: nobody needs to sign in")
    if who is None:
        raise Refused(401, "no such token")
    cookie = service.auth.session(who)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=service.settings.secure or request.url.scheme == "https",
        path="/",
    )
    known = service.auth.by_session(cookie)
    assert known is not None
    return {"name": known.name, "role": known.role, "csrf": known.csrf, "tokens": True}


@router.get("/v1/session", response_model=schemas.Session, dependencies=[Readers])
def session(service: TheService, who: Asking) -> Any:
    """Who is signed in."""
    return {
        "name": who.name,
        "role": who.role,
        "csrf": who.csrf,
        "tokens": not service.auth.open,
    }


@router.delete("/v1/session", status_code=204)
def sign_out() -> Response:
    """Forget the page's cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", samesite="strict", httponly=True)
    return response


@router.get("/v1/audit", dependencies=[Managers])
def audit(
    service: TheService,
    since: float = 0.0,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 1000,
) -> list[dict[str, Any]]:
    """Who did and read what, the newest first."""
    return service.audit.lines(since, limit)


def _find(service: Service, name: str, fingerprint: str) -> Version:
    return next(v for v in service.models.versions(name) if v.fingerprint == fingerprint)


def _version(service: Service, version: Version) -> dict[str, Any]:
    loaded = service.models.loaded
    return asdict(version) | {
        "folder": version.folder.name,
        "loaded": version.fingerprint in loaded,
        "silence": loaded.get(version.fingerprint),
    }
