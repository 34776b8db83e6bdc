"""Where an archive is and how to log in, and what is said when talking to it fails."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import requests

from scrd.errors import ScrdError

TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and between two pieces of an answer."""

_SCHEMES = {"http": "http", "https": "https", "dicomweb": "http", "dicomwebs": "https"}
_BUSY = frozenset({408, 425, 429, 502, 503, 504})


class ArchiveError(ScrdError):
    """Talking to an archive failed; the message names its address, what was tried and the answer.

    Attributes:
        status: HTTP status of the answer; None where there was no answer.
    """

    def __init__(self, address: str, tried: str, cause: str, status: int | None = None) -> None:
        super().__init__(f"{address}: {tried}: {cause}")
        self.status = status

    @property
    def away(self) -> bool:
        """Whether the archive itself, not the request, is what is wrong for now."""
        return self.status is None or self.status in _BUSY


class StudyGone(ArchiveError):
    """The archive does not hold the study any more."""

    def __init__(self, address: str) -> None:
        super().__init__(address, "fetching a study", "it is not there any more", 404)


@dataclass(frozen=True)
class Address:
    """An archive's address.

    Attributes:
        url: http or https, without user, password and closing slash: fit for messages.
        login: User and password, None without.
        token: Bearer token, None without.
    """

    url: str
    login: tuple[str, str] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, kind: str) -> Address:
        """Take an address apart.

        Args:
            url: ``http(s)://[user:password@]host[:port][/path]``; ``dicomweb`` and ``dicomwebs``
                stand for http and https.
            kind: ``"DICOMWEB"`` or ``"ORTHANC"``: without user in the address the environment
                variables ``SCRD_<kind>_USER``, ``_PASSWORD`` and ``_TOKEN`` are used.

        Raises:
            ScrdError: not such an address; the message does not quote it, as it may hold a
                password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        scheme = _SCHEMES.get(parts.scheme.lower())
        if scheme is None or not parts.hostname or parts.query or parts.fragment:
            raise ScrdError(
                "the archive's address is not of the form http(s)://host[:port][/path] "
                "or dicomweb(s)://host[:port][/path]"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        place = f"{scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
        user, password = parts.username, parts.password or ""
        if user is not None:
            return cls(place, (unquote(user), unquote(password)))
        user = os.environ.get(f"SCRD_{kind}_USER")
        password = os.environ.get(f"SCRD_{kind}_PASSWORD", "")
        token = os.environ.get(f"SCRD_{kind}_TOKEN")
        return cls(place, (user, password) if user else None, token or None)

    def session(self) -> requests.Session:
        """A session that logs in."""
        session = requests.Session()
        session.auth = self.login
        if self.token and not self.login:
            session.headers["Authorization"] = f"Bearer {self.token}"
        return session

    def error(self, tried: str, cause: Exception) -> ArchiveError:
        """What to raise for an exception of requests, whose own text may hold UIDs."""
        response = getattr(cause, "response", None)
        if response is not None:
            status = response.status_code
            told = f"HTTP {status}"
            if status in (401, 403):
                told += ", the user, password or token is missing or not accepted"
            return ArchiveError(self.url, tried, told, status)
        if isinstance(cause, requests.Timeout):
            return ArchiveError(self.url, tried, "no answer in time")
        if isinstance(cause, requests.exceptions.SSLError):
            return ArchiveError(self.url, tried, "the TLS certificate is not accepted")
        return ArchiveError(self.url, tried, f"no connection ({type(cause).__name__})")
