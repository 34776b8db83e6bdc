"""One study by WADO-RS, results back by STOW-RS."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.uid import RE_VALID_UID

from scrd.archive.connection import TIMEOUT, Address, ArchiveError
from scrd.archive.selection import is_source

# dicomweb-client logs UIDs and whole answers; what matters of them is in our own errors
logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)

_SERIES, _INSTANCE = "0020000E", "00080018"
_MODALITY, _MANUFACTURER = "00080060", "00080070"

T = TypeVar("T")


class _Archive:
    """A DICOMweb client whose failures are ArchiveErrors."""

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url, "DICOMWEB")
        self.client = DICOMwebClient(
            self.address.url, session=self.address.session(), timeout=TIMEOUT
        )
        self.client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=250)

    def ask(self, tried: str, question: Callable[[], T]) -> T:
        try:
            return question()
        except requests.RequestException as e:
            raise self.address.error(tried, e) from None
        except OSError:
            raise
        except Exception as e:  # whatever unexpected bytes make pydicom or the client raise
            cause = f"the answer is not what DICOMweb prescribes ({type(e).__name__})"
            raise ArchiveError(self.address.url, tried, cause, 200) from None


def fetch_study(url: str, study_uid: str, folder: Path) -> tuple[Path, ...]:
    """Fetch the images of a study, one at a time, as they are stored in the archive.

    What is not an image (structured reports, segmentations, presentation states, ...) and what
    scrd itself has stored is left out.

    Args:
        url: ``dicomweb(s)://`` or ``http(s)://[user:password@]host[:port]/path``; without user the
            environment variables ``SCRD_DICOMWEB_USER`` and ``SCRD_DICOMWEB_PASSWORD`` or
            ``SCRD_DICOMWEB_TOKEN`` log in.
        study_uid: Study Instance UID.
        folder: Where the files go; made if need be. They are named by number.

    Returns:
        The N files, in the archive's order of series and instances.

    Raises:
        ArchiveError: there is no answer, the archive refuses, or it has no image of the study.
        ScrdError: the address or the UID is not one.
    """
    archive = _Archive(url)
    client = archive.client
    if not re.fullmatch(RE_VALID_UID, study_uid):
        raise ArchiveError(archive.address.url, "fetching a study", "not a Study Instance UID", 400)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    find_series = partial(
        client.search_for_series,
        study_uid,
        fields=["Modality", "Manufacturer"],
        get_remaining=True,
    )
    for series in archive.ask("searching the study's series", find_series):
        if not is_source(_value(series, _MODALITY), _value(series, _MANUFACTURER)):
            continue
        uid = _value(series, _SERIES) or ""
        find = partial(client.search_for_instances, study_uid, uid, get_remaining=True)
        for instance in archive.ask("searching a series' instances", find):
            path = folder / f"{len(files) + 1:06d}.dcm"
            retrieve = partial(
                _retrieve, client, study_uid, uid, _value(instance, _INSTANCE) or "", path
            )
            if archive.ask("retrieving an instance", retrieve):
                files.append(path)
    if not files:
        raise ArchiveError(
            archive.address.url, "fetching a study", "the archive holds no image of it", 404
        )
    return tuple(files)


def store(url: str, files: Sequence[Path]) -> None:
    """Store DICOM files, one a request.

    Args:
        url: As in :func:`fetch_study`.
        files: The files; what the archive has already is left to its own rule (Orthanc keeps the
            first version unless ``OverwriteInstances`` is set).

    Raises:
        ArchiveError: there is no answer, or the archive does not take a file.
    """
    archive = _Archive(url)
    for number, path in enumerate(files, 1):
        tried = f"storing result {number} of {len(files)}"
        dataset = pydicom.dcmread(path)
        answer = archive.ask(tried, partial(archive.client.store_instances, [dataset]))
        refused = answer.get("FailedSOPSequence") or []
        if refused:
            reason = refused[0].get("FailureReason")
            code = "without a reason" if reason is None else f"failure reason 0x{int(reason):04X}"
            raise ArchiveError(archive.address.url, tried, f"refused, {code}", 409)


def _retrieve(client: DICOMwebClient, study: str, series: str, sop: str, path: Path) -> bool:
    """Write an instance to a file; returns False if it is nothing to be scored."""
    dataset = client.retrieve_instance(study, series, sop)
    if not is_source(str(dataset.get("Modality") or ""), str(dataset.get("Manufacturer") or "")):
        return False
    dataset.save_as(path, enforce_file_format=True)
    return True


def _value(answer: Any, tag: str) -> str | None:
    values = answer.get(tag, {}).get("Value") or [None]
    return values[0] if isinstance(values[0], str) else None
