"""`scrd serve` and `scrd token`. Heavy modules are imported inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scrd.commands.common import BatchSize, Device, Threads
from scrd.system.console import out, refusing


def serve(
    models: Annotated[
        list[str],
        typer.Argument(help="Model folders, FOLDER or NAME=FOLDER; exported ones start quicker."),
    ],
    store: Annotated[
        Path, typer.Option(help="Folder that keeps images, results and marks.")
    ] = Path("scrd-serve"),
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; by default this machine only.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    tokens: Annotated[Path | None, typer.Option(help="File of tokens, see scrd token.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front of it speaks TLS.")
    ] = False,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Delete jobs this long after their end.")
    ] = 30.0,
    keep_gb: Annotated[
        float, typer.Option(min=0, help="Delete the oldest jobs beyond this size, 1e9 bytes.")
    ] = 50.0,
    watch: Annotated[
        list[Path] | None,
        typer.Option(help="Show how this scrd watch is: its state file, or a folder of some."),
    ] = None,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Score what is sent over HTTP; a page to drop images on and look at results."""
    import logging

    from scrd.errors import ConfigError
    from scrd.serve.auth import check_address, read_tokens
    from scrd.serve.models import parse_models

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with refusing():
        wanted = parse_models(models)
        known = read_tokens(tokens)
        if (tls_cert is None) != (tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together")
        for file in (tls_cert, tls_key):
            if file is not None and not file.is_file():
                raise ConfigError(f"{file}: no such file")
        address = host or "127.0.0.1"
        check_address(
            address, tokens=bool(known), tls=tls_cert is not None, behind_proxy=behind_proxy
        )
        from scrd.serve.run import run
        from scrd.serve.service import Settings

        settings = Settings(
            models=wanted,
            tokens=known,
            device=device,
            batch_size=batch_size,
            threads=threads,
            keep_days=keep_days,
            keep_gigabytes=keep_gb,
            secure=tls_cert is not None or behind_proxy,
            watches=watch or [],
        )
        run(
            store,
            settings,
            host=address,
            port=port,
            certificate=tls_cert,
            key=tls_key,
            behind_proxy=behind_proxy,
        )


def token(
    name: Annotated[str, typer.Argument(help="Whose it is; stands in the audit log.")],
    role: Annotated[str, typer.Option(help="read, write or manage.")] = "write",
    tokens: Annotated[Path | None, typer.Option(help="File to add its hash to.")] = None,
) -> None:
    """Make a token for `scrd serve`: shown once, kept as a hash."""
    import os

    from scrd.errors import ConfigError
    from scrd.serve.auth import TOKENS, new_token, read_tokens

    with refusing():
        made, line = new_token(name, role)
        if tokens is not None:
            there = read_tokens(tokens, {}) if tokens.exists() else []
            if name in [known.name for known in there]:
                raise ConfigError(f"{tokens}: holds a token named {name}; take its line out first")
            handle = os.open(tokens, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            with open(handle, "a", encoding="utf-8") as file:
                file.write(f"{line}\n")
    out.print(f"token: {made}")
    out.print(f"line: {line}" if tokens is None else f"its hash was added to {tokens}")
    if tokens is None:
        out.print(f"put the line into a file for --tokens, or into the variable {TOKENS}")
