"""A client of the service, for programs: send files, wait, read results.

>>> from scrd.serve.client import Client
>>> with Client("https://scrd.example", token="…") as client:  # doctest: +SKIP
...     for result in client.score(["chest.dcm"]).results:
...         print(result.name, result.p_value, result.flag)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from scrd.errors import ScrdError

_AGAIN = (429, 502, 503, 504)
_LONGEST = 30.0
_WAIT = 20.0  # seconds that the service is asked to wait


class ServiceError(ScrdError):
    """The service refused, failed, or was not there; the message says what it said."""


@dataclass(frozen=True)
class Result:
    """One picture or series; see the service's documentation for the rest of it."""

    id: str
    name: str
    kind: str
    model: str
    fingerprint: str
    score: float | None
    p_value: float | None
    flag: bool | None
    refusal: str | None
    doubts: int
    images: int


@dataclass(frozen=True)
class Job:
    """Files that were sent together.

    Attributes:
        id: its name.
        status: ``queued``, ``scoring``, ``done`` or ``failed``.
        reason: why it failed.
        results: when it is done.
    """

    id: str
    status: str
    reason: str
    results: tuple[Result, ...]


class Client:
    """Talks to one service.

    Args:
        url: such as ``https://scrd.example``.
        token: where the service asks for one.
        seconds: for one request.
        attempts: how often a request is made that meets a full queue or a service that restarts.
    """

    def __init__(
        self, url: str, token: str | None = None, *, seconds: float = 60.0, attempts: int = 8
    ) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=seconds)
        self._attempts = attempts

    def send(self, paths: Sequence[str | Path], model: str | None = None) -> Job:
        """Send files as one job; it is safe with the service when this returns.

        A request whose answer was lost is repeated without making a second job.

        Raises:
            ServiceError: refused, or not there.
            OSError: a file cannot be read.
        """
        data = {} if model is None else {"model": model}
        headers = {"idempotency-key": secrets.token_hex(16)}
        with ExitStack() as stack:
            files = [("files", (Path(p).name, stack.enter_context(open(p, "rb")))) for p in paths]

            def again() -> httpx.Response:
                for _, (_, file) in files:
                    file.seek(0)
                return self._http.post("/v1/score", files=files, data=data, headers=headers)

            return _job(self._try(again).json())

    def job(self, job: str) -> Job:
        """How a job is now.

        Raises:
            ServiceError: there is none, or the service is not there.
        """
        return _job(self._get(f"/v1/jobs/{job}").json())

    def wait(self, job: Job, *, seconds: float = 3600.0) -> Job:
        """Wait until a job is done.

        Raises:
            ServiceError: it failed, or it takes longer than ``seconds``.
        """
        end = time.monotonic() + seconds
        while job.status in ("queued", "scoring"):
            left = end - time.monotonic()
            if left < 0:
                raise ServiceError(f"job {job.id} is not done after {seconds:g} s")
            begun = time.monotonic()
            job = _job(self._get(f"/v1/jobs/{job.id}?wait={min(left, _WAIT):.1f}").json())
            if time.monotonic() - begun < 1.0:  # it stops, and does not wait
                time.sleep(0.02)
        if job.status == "failed":
            raise ServiceError(f"job {job.id} failed: {job.reason}")
        return job

    def score(self, paths: Sequence[str | Path], model: str | None = None) -> Job:
        """Send files and wait for their results.

        Raises:
            ServiceError: see `send` and `wait`.
        """
        return self.wait(self.send(paths, model))

    def details(self, result: Result) -> dict[str, Any]:
        """A result image by image, with the verdicts of its series and study."""
        details: dict[str, Any] = self._get(f"/v1/results/{result.id}").json()
        return details

    def download(self, result: Result, what: str, path: str | Path) -> Path:
        """Write what there is of a result into a file.

        Args:
            result: whose.
            what: ``overlay.png``, ``source.png``, ``map.npy``, ``map.nii.gz``, ``dicom/sr``, ...
            path: of the file.

        Raises:
            ServiceError: there is none.
        """
        Path(path).write_bytes(self._get(f"/v1/results/{result.id}/{what}").content)
        return Path(path)

    def mark(self, result: Result, verdict: str, comment: str = "") -> None:
        """Say that a result is ``right`` or ``wrong``."""
        self._try(
            lambda: self._http.put(
                f"/v1/results/{result.id}/mark", json={"verdict": verdict, "comment": comment}
            )
        )

    def drift(self, model: str) -> dict[str, Any]:
        """Whether what a model was sent has drifted, and what says so.

        Raises:
            ServiceError: there is no such model.
        """
        drift: dict[str, Any] = self._get(f"/v1/models/{quote(model, safe='')}/drift").json()
        return drift

    def _get(self, path: str) -> httpx.Response:
        return self._try(lambda: self._http.get(path))

    def _try(self, request: Any) -> httpx.Response:
        for attempt in range(self._attempts):
            last = attempt == self._attempts - 1
            wait = min(0.25 * 2**attempt, _LONGEST)
            try:
                answer: httpx.Response = request()
            except httpx.TransportError as error:
                if last:
                    raise ServiceError(
                        f"{self._http.base_url}: not there ({type(error).__name__})"
                    ) from error
            else:
                if answer.is_success:
                    return answer
                if last or answer.status_code not in _AGAIN:
                    raise ServiceError(f"{answer.status_code}: {_said(answer)}")
                asked = answer.headers.get("retry-after", "")
                wait = float(asked) if asked.isdecimal() else wait
            time.sleep(min(wait, _LONGEST))
        raise AssertionError

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _job(answer: dict[str, Any]) -> Job:
    names = [field.name for field in fields(Result)]
    results = tuple(Result(**{name: row[name] for name in names}) for row in answer["results"])
    return Job(answer["id"], answer["status"], answer["reason"], results)


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
