"""The server process: listens, says when it is ready, stops in good order."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from types import FrameType

import uvicorn

from scrd.errors import ScrdError
from scrd.serve.app import make_app
from scrd.serve.service import Service, Settings
from scrd.serve.store import Store

log = logging.getLogger("scrd.serve")

_CONNECTIONS = 256


class _Server(uvicorn.Server):
    service: Service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        log.info("stopping: the job in hand is finished, the others wait in the store")
        self.service.announce_stop()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        """Say when the first model is there."""
        while self.service.not_ready():
            await asyncio.sleep(0.02)
        log.info("ready")


def run(
    folder: Path,
    settings: Settings,
    *,
    host: str,
    port: int,
    certificate: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
) -> None:
    """Serve until told to stop by SIGTERM or SIGINT.

    Args:
        folder: of the store.
        settings: of the service.
        host: to listen on.
        port: 0 takes a free one.
        certificate: of TLS, PEM.
        key: of the certificate, PEM.
        behind_proxy: believe what a proxy says of the client's address.

    Raises:
        StoreError: the store cannot be used.
        ScrdError: the place to listen on is taken, or a model cannot be loaded.
    """
    with Store(folder) as store:

        def give_up() -> None:
            server.should_exit = True

        app = make_app(store, settings, give_up)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            log_config=None,
            access_log=False,  # an address is nobody's business; the audit log knows the routes
            server_header=False,
            proxy_headers=behind_proxy,
            forwarded_allow_ips="*" if behind_proxy else None,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=32_768,
            ws="none",
        )
        server = _Server(config)
        server.service = app.state.service
        try:
            listening = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as e:
            raise ScrdError(f"{host}, port {port}: cannot listen there ({e.strerror})") from None
        with listening:
            scheme = "http" if certificate is None else "https"
            shown = f"[{host}]" if ":" in host else host
            log.info("listening on %s://%s:%d", scheme, shown, listening.getsockname()[1])
            server.run(sockets=[listening])
        if server.service.supervisor.fatal:
            raise ScrdError(server.service.supervisor.fatal)
