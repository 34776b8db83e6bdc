"""The door: who asks, from where, for how long; what is counted and written down of it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scrd.serve.auth import COOKIE, CSRF, Who, is_loopback
from scrd.serve.faults import where
from scrd.serve.service import Service

log = logging.getLogger("scrd.serve")

OPEN = ("/healthz", "/readyz", "/", "/favicon.ico")
"""Routes that need no token; so do the files of the page, which hold no data, and the sign-in."""

_DRAINED = 16 << 20  # bytes of a refused body that are read all the same
_DRAIN_SECONDS = 10.0
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, service: Callable[[], Service]) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service, headers = self._service(), Headers(scope=scope)
        status, begun = 0, time.perf_counter()
        body = _Body(receive, headers.get("content-length", ""))

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                deadline.deadline = float("inf")  # a download may take its time
                ready = MutableHeaders(scope=message)
                # whoever still sends would otherwise see a broken line instead of the answer
                if scope["method"] in ("POST", "PUT") and not await body.drain():
                    ready["connection"] = "close"
                for name, value in _HEADERS.items():
                    ready.setdefault(name, value)
                if scope.get("scheme") == "https":
                    ready["strict-transport-security"] = "max-age=31536000"
            await send(message)

        refusal, who = _judge(service, scope, headers)
        scope.setdefault("state", {})["who"] = who
        seconds = service.limits.request_seconds
        uploads = scope["path"] == "/v1/score"  # has a clock of its own
        with anyio.move_on_after(None if uploads else seconds) as deadline:
            if refusal is not None:
                await _refuse(answer, *refusal)
            else:
                try:
                    await self._app(scope, body.receive, answer)
                except Exception as error:
                    log.error("%s failed: %s", _route(scope), where(error))
                    if not status:
                        await _refuse(answer, 500, "a fault of the software; the log says where")
        if deadline.cancelled_caught and not status:
            await _refuse(answer, 504, f"it took more than {seconds:g} s")
        self._note(service, scope, who, status, time.perf_counter() - begun)

    def _note(
        self, service: Service, scope: Scope, who: Who | None, status: int, seconds: float
    ) -> None:
        route = _route(scope)
        service.metrics.requests.labels(route, str(status)).inc()
        if not scope["path"].startswith("/v1/") or route == "/v1/results/{result}/thumbnail.jpg":
            return
        path = scope.get("path_params", {})
        thing = str(path.get("result") or path.get("job") or path.get("name") or "")
        address = (scope.get("client") or ("",))[0]
        name = who.name if who else "nobody"
        service.audit.note(name, address, f"{scope['method']} {route}", thing, status)
        log.debug("%s %s %d %.3f s", scope["method"], route, status, seconds)


class _Body:
    """A request's body, of which it is known whether it was read to its end."""

    def __init__(self, receive: Receive, length: str) -> None:
        self._receive = receive
        self._long = length.isdecimal() and int(length) > _DRAINED
        self._ended = False

    async def receive(self) -> Message:
        """The next part."""
        message = await self._receive()
        self._ended = not message.get("more_body", False)
        return message

    async def drain(self) -> bool:
        """Read what is left, if it is not much; returns whether that was all."""
        came = 0
        with anyio.move_on_after(_DRAIN_SECONDS):
            while not self._ended and not self._long and came <= _DRAINED:
                came += len((await self.receive()).get("body", b""))
        return self._ended


def _judge(
    service: Service, scope: Scope, headers: Headers
) -> tuple[tuple[int, str] | None, Who | None]:
    """Status and reason of a refusal, or None; and who asks."""
    method, path = scope["method"], scope["path"]
    host = headers.get("host", "")
    origin = headers.get("origin")
    if service.auth.open and not is_loopback(_name(host)):
        # another site's name that leads here would make its scripts ours
        return (421, "without tokens only names of this machine are answered"), None
    if method not in _SAFE:
        if origin is not None and urlsplit(origin).netloc != host:
            return (403, "a page of another site may change nothing here"), None
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return (403, "a page of another site may change nothing here"), None
    who, by_cookie = _who(service, headers)
    if path in OPEN or path.startswith("/page/"):
        return None, who
    if path == "/v1/session" and method in ("POST", "DELETE"):
        return None, who
    if who is None:
        return (401, "a token is needed: Authorization: Bearer TOKEN"), None
    if by_cookie and method not in _SAFE and headers.get(CSRF) != who.csrf:
        return (403, "the page is out of date: load it again"), who
    return None, who


def _who(service: Service, headers: Headers) -> tuple[Who | None, bool]:
    """Who asks, and whether only a cookie says so."""
    if service.auth.open:
        return Who("local", "manage"), False
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return service.auth.by_token(token.strip()), False
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None, False
    return (None, False) if cookie is None else (service.auth.by_session(cookie.value), True)


def _name(host: str) -> str:
    """The host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _route(scope: Scope) -> str:
    """The pattern, never the path: that may be anything."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "other"


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
