"""Who may do what: tokens by name, kept as hashes; sessions of the page; where one may listen."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scrd.errors import ConfigError

Role = Literal["read", "write", "manage"]
ROLES: tuple[Role, ...] = ("read", "write", "manage")
"""``read``: see jobs, results and marks. ``write``: also send images and mark results.
``manage``: also change models and read the audit log. Each may do what those before it may."""

TOKENS = "SCRD_TOKENS"
"""Environment variable with lines of a tokens file."""

SESSION_SECONDS = 12 * 3600
COOKIE = "scrd_session"
CSRF = "x-scrd-csrf"

_LINE = re.compile(r"([A-Za-z0-9][\w.@-]{0,63})\s+(read|write|manage)\s+sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Who:
    """Who asks.

    Attributes:
        name: of the token; "local" where there are no tokens.
        role: what it may do.
        csrf: what the page must send with every change; empty where a token was sent.
    """

    name: str
    role: Role
    csrf: str = ""

    def may(self, role: Role) -> bool:
        """Whether it may do what a role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Token:
    """A token as it is kept.

    Attributes:
        name: in logs and in the audit.
        role: what it may do.
        digest: SHA-256, in hexadecimal. The tokens have 256 random bits, so that nothing slower
            is needed.
    """

    name: str
    role: Role
    digest: str


def new_token(name: str, role: str) -> tuple[str, str]:
    """A new token, and its line for a tokens file.

    Raises:
        ConfigError: a name or role that could not stand there.
    """
    token = f"scrd_{secrets.token_urlsafe(32)}"
    line = f"{name} {role} sha256:{_digest(token)}"
    if not _LINE.fullmatch(line):
        raise ConfigError(
            f"a token's name is letters, digits and . _ @ -, and its role one of {', '.join(ROLES)}"
            f"; not {name!r}, {role!r}"
        )
    return token, line


def read_tokens(file: Path | None, environment: Mapping[str, str] = os.environ) -> list[Token]:
    """The tokens of a file and of the environment variable ``SCRD_TOKENS``.

    A line is ``NAME ROLE sha256:HASH``; in the variable a semicolon ends a line, too. Lines that
    are empty or begin with # are passed over.

    Raises:
        ConfigError: a line that is none, or a name twice; neither is quoted.
        OSError: the file cannot be read.
    """
    places = {TOKENS: environment.get(TOKENS, "").replace(";", "\n")}
    if file is not None:
        places[str(file)] = file.read_text(encoding="utf-8")
    tokens: dict[str, Token] = {}
    for place, text in places.items():
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            found = _LINE.fullmatch(line.strip())
            if found is None:
                raise ConfigError(f"{place}, line {number}: not NAME ROLE sha256:HASH")
            name, role, digest = found.groups()
            if name in tokens:
                raise ConfigError(f"{place}, line {number}: a token of this name was there before")
            tokens[name] = Token(name, role, digest)  # type: ignore[arg-type]
    return list(tokens.values())


def check_address(host: str, *, tokens: bool, tls: bool, behind_proxy: bool) -> None:
    """See whether one may listen there.

    Raises:
        ConfigError: beyond this machine without tokens, or without TLS of its own or of a proxy.
    """
    if is_loopback(host):
        if behind_proxy and not tokens:
            raise ConfigError("--behind-proxy lets other machines in: give --tokens")
        return
    if not tokens:
        raise ConfigError(
            f"--host {host} can be reached from other machines: give --tokens, so that not "
            "everybody sees the images"
        )
    if not tls and not behind_proxy:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and tokens and images would go "
            "over the network in the clear: give --tls-cert and --tls-key, or --behind-proxy "
            "where a proxy in front of it speaks TLS"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Auth:
    """Tells who asks.

    Args:
        tokens: none lets everybody in, who can then be on this machine only.
        secret: signs sessions; one of the store's own, so that they outlive a restart.
    """

    def __init__(self, tokens: list[Token], secret: bytes) -> None:
        self._tokens = {token.name: token for token in tokens}
        self._secret = secret

    @property
    def open(self) -> bool:
        """Whether there are no tokens."""
        return not self._tokens

    def by_token(self, text: str) -> Who | None:
        """Who a token is; takes as long whether and where it is wrong."""
        digest, found = _digest(text), None
        for token in self._tokens.values():
            if hmac.compare_digest(token.digest, digest):
                found = Who(token.name, token.role)
        return found

    def session(self, who: Who) -> str:
        """A cookie for the page, good for `SESSION_SECONDS` and as long as the token."""
        text = f"{who.name}|{int(time.time()) + SESSION_SECONDS}|{secrets.token_hex(8)}"
        return f"{text}|{self._signed('session', text, who.name)}"

    def by_session(self, cookie: str) -> Who | None:
        """Who a cookie is."""
        text, _, signature = cookie.rpartition("|")
        name, _, rest = text.partition("|")
        token = self._tokens.get(name)
        if token is None or not hmac.compare_digest(
            signature.encode(), self._signed("session", text, name).encode()
        ):
            return None
        if int(rest.partition("|")[0]) < time.time():
            return None
        return Who(name, token.role, csrf=self._signed("csrf", cookie, name))

    def _signed(self, use: str, text: str, name: str) -> str:
        digest = self._tokens[name].digest
        return hmac.new(self._secret, f"{use}|{digest}|{text}".encode(), "sha256").hexdigest()


def store_secret(folder: Path) -> bytes:
    """The secret of a store, made once; only its owner can read it.

    Raises:
        OSError: it can be neither read nor made.
    """
    path = folder / "secret"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with open(handle, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
