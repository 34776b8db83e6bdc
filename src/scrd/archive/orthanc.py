"""An Orthanc that is watched through its REST interface.

Which studies have changed is read from ``/changes``. A study is complete when Orthanc calls it
stable. Its StableStudy event alone will not do: an Orthanc that is killed before a study is stable
never sends it. So every study with a new instance is kept in mind until it is seen stable.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import requests

from scrd.archive.connection import TIMEOUT, Address, ArchiveError, StudyGone
from scrd.archive.selection import fingerprint, is_source
from scrd.archive.state import Arrival, State
from scrd.dicom.labels import MAKER, SERIAL

_PAGE = 100

log = logging.getLogger("scrd.watch")


class Orthanc:
    """An Orthanc server as a source of studies and a place for results.

    Args:
        url: ``http(s)://[user:password@]host[:port]``; without user the environment variables
            ``SCRD_ORTHANC_USER`` and ``SCRD_ORTHANC_PASSWORD`` log in.

    Raises:
        ScrdError: the address is not one.
    """

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url, "ORTHANC")
        self._session = self._address.session()
        self.name = self._address.url

    def poll(self, state: State) -> bool:
        """Read one page of changes and record it together with how far it goes.

        Returns:
            Whether there is more to read.

        Raises:
            ArchiveError: no answer or not that of an Orthanc.
        """
        waiting = state.arriving
        sequence, mark = state.position
        # the last change is read again: that it is still there shows that this is still the
        # archive, and not one that was emptied, or restored from a backup, and has grown since
        page = self._json(
            "GET", f"/changes?since={max(sequence - 1, 0)}&limit={_PAGE + 1}", "reading changes"
        )
        changes = page["Changes"]
        if sequence:
            if not changes or _mark(changes[0]) != mark:
                log.warning("the last change seen is not in the archive: its log is read again")
                state.record(position=(0, ""))
                return True
            changes = changes[1:]
        if changes:
            stable = {c["ID"] for c in changes if c["ChangeType"] == "StableStudy"}
            new = {c["ID"] for c in changes if c["ChangeType"] == "NewInstance"}
            seen = self._studies(stable | new)
            ready = [s for s in seen if s["IsStable"] and s["ID"] in stable]
            complete = {s["ID"] for s in ready}
            state.record(
                queue=self._arrivals(ready),
                settled=complete,
                arriving=[s["ID"] for s in seen if s["ID"] not in complete],
                position=(changes[-1]["Seq"], _mark(changes[-1])),
            )
        if not page["Done"]:
            return True
        self._look_after(state, waiting)
        return False

    def _look_after(self, state: State, keys: Sequence[str]) -> None:
        """Queue the studies among `keys` that are stable by now, and drop those that are gone."""
        still = set(state.arriving)
        keys = [key for key in keys if key in still]
        for start in range(0, len(keys), _PAGE):
            asked = keys[start : start + _PAGE]
            seen = self._studies(asked)
            unstable = {s["ID"] for s in seen if not s["IsStable"]}
            state.record(
                queue=self._arrivals(s for s in seen if s["IsStable"]),
                settled=[key for key in asked if key not in unstable],
            )

    def _studies(self, resources: Iterable[str]) -> list[dict[str, Any]]:
        """The studies that resources belong to, without those that are gone."""
        body = {"Resources": sorted(resources), "Level": "Study", "Metadata": False}
        if not body["Resources"]:
            return []
        found: list[dict[str, Any]] = self._json(
            "POST", "/tools/bulk-content", "looking up studies", json=body
        )
        return found

    def _arrivals(self, studies: Iterable[dict[str, Any]]) -> list[Arrival]:
        arrivals = []
        for study in studies:
            try:
                instances = self._sources(study["ID"])
            except StudyGone:
                continue
            if instances:
                uid = study["MainDicomTags"]["StudyInstanceUID"]
                arrivals.append(Arrival(study["ID"], uid, fingerprint(instances.values())))
        return arrivals

    def _sources(self, key: str) -> dict[str, str]:
        """A study's images: Orthanc's identifier → what changes when the file is replaced.

        The identifier is the SHA-1 of patient ID and UIDs, so as good as these, and the same for
        a corrected image. The name under which Orthanc keeps a file is another one for each
        that it stores.
        """
        series = {
            s["ID"]
            for s in self._listed(key, "series")
            if is_source(s["MainDicomTags"].get("Modality"), s["MainDicomTags"].get("Manufacturer"))
        }
        return {
            i["ID"]: f"{i['ID']} {i.get('FileUuid', '')} {i.get('FileSize', '')}"
            for i in self._listed(key, "instances")
            if i["ParentSeries"] in series
        }

    def _listed(self, key: str, what: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._json(
                "GET", f"/studies/{key}/{what}", "listing a study"
            )
        except ArchiveError as e:
            raise (StudyGone(self.name) if e.status == 404 else e) from None
        return found

    def fetch(self, key: str, folder: Path) -> str:
        """Download the images of a study, one at a time, streamed to files named by number.

        Args:
            key: Orthanc's identifier of the study.
            folder: An empty folder.

        Returns:
            The fingerprint of what was fetched.

        Raises:
            StudyGone: the study is not there any more, or has no image any more.
            ArchiveError: the download failed.
        """
        instances = self._sources(key)
        if not instances:
            raise StudyGone(self.name)
        for number, instance in enumerate(instances, 1):
            self._download(instance, folder / f"{number:06d}.dcm")
        return fingerprint(instances.values())

    def _download(self, instance: str, path: Path) -> None:
        tried = "downloading an instance"
        plain = {"Accept-Encoding": "identity"}  # so that Content-Length is that of the file
        with self._ask(
            "GET", f"/instances/{instance}/file", tried, stream=True, headers=plain
        ) as answer:
            try:
                with open(path, "wb") as file:
                    for block in answer.iter_content(1 << 20):
                        file.write(block)
            except requests.RequestException as e:
                raise self._address.error(tried, e) from None
            promised = answer.headers.get("Content-Length")
        if promised is not None and int(promised) != path.stat().st_size:
            raise ArchiveError(self.name, tried, "the answer was cut short")

    def store(self, key: str, files: Sequence[Path], models: Collection[str]) -> int:
        """Store results, in place of what the same watch stored in this study before.

        Orthanc keeps the first version of an instance, so what is to be replaced is deleted first;
        nothing is ever deleted that scrd has not written.

        Args:
            key: Orthanc's identifier of the study.
            files: DICOM files of scrd.
            models: Fingerprints of the models whose results are replaced.

        Returns:
            How many results of other models the study holds.

        Raises:
            ArchiveError: the archive did not take a file; the study is to be done again.
        """
        others = self._delete_own(key, {model[:SERIAL] for model in models})
        for number, path in enumerate(files, 1):
            tried = f"storing result {number} of {len(files)}"
            with open(path, "rb") as file:
                answer = self._json("POST", "/instances", tried, data=file)
            if answer.get("Status") not in ("Success", "AlreadyStored"):
                raise ArchiveError(self.name, tried, "the archive's own rules refuse it", 409)
        return others

    def _delete_own(self, key: str, serials: set[str]) -> int:
        others = 0
        for series in self._listed(key, "series"):
            if series["MainDicomTags"].get("Manufacturer") != MAKER:
                continue
            for instance in series["Instances"]:
                tried = "replacing an older result"
                header = self._json("GET", f"/instances/{instance}/simplified-tags", tried)
                if header.get("Manufacturer") != MAKER:
                    continue
                if header.get("DeviceSerialNumber", "") in serials:
                    self._ask("DELETE", f"/instances/{instance}", tried).close()
                else:
                    others += 1
        return others

    def _json(self, method: str, path: str, tried: str, **options: Any) -> Any:
        with self._ask(method, path, tried, **options) as answer:
            try:
                return answer.json()
            except requests.JSONDecodeError:
                cause = "the answer is not JSON: is this the address of an Orthanc?"
                raise ArchiveError(self.name, tried, cause, answer.status_code) from None
            except requests.RequestException as e:
                raise self._address.error(tried, e) from None

    def _ask(self, method: str, path: str, tried: str, **options: Any) -> requests.Response:
        try:
            answer = self._session.request(method, self.name + path, timeout=TIMEOUT, **options)
            answer.raise_for_status()
        except requests.RequestException as e:
            raise self._address.error(tried, e) from None
        return answer


def _mark(change: dict[str, Any]) -> str:
    return " ".join(str(change[key]) for key in ("Seq", "ChangeType", "ID", "Date"))
