"""A folder that DICOM files are dropped into, by a router or by hand, and one for results."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scrd.archive.connection import ArchiveError, StudyGone
from scrd.archive.selection import fingerprint
from scrd.archive.state import Arrival, State
from scrd.data.reading import file_format
from scrd.dicom.uids import tag
from scrd.errors import ImageError
from scrd.system.files import sha256

log = logging.getLogger("scrd.watch")


@dataclass(frozen=True)
class _File:
    """What is known of a file.

    Attributes:
        stamp: Inode, size and times of change: the rest holds as long as they are the same.
        study: Study Instance UID; None where the file is nothing to be scored.
        revision: Its image as it is now, by SOP Instance UID (the path where the header has none)
            and content: a corrected one often comes under the old UID, with any time stamp.
        odd: Whether it is not readable as a DICOM file of a study.
    """

    stamp: tuple[int, ...]
    study: str | None
    revision: str
    odd: bool = False


class Folder:
    """A folder, with all below it, as a source of studies, and another one for results.

    Which study a file belongs to is read from its header. A study is complete when none of its
    files changed for a while. Files and folders whose names begin with a dot are left alone:
    programs give such names to files which they are still writing.

    Args:
        root: The folder.
        out: Where results go, a folder for each study named by the tag of its UID.
        settle_seconds: How long a study must have been left unchanged.
    """

    def __init__(self, root: Path, out: Path, *, settle_seconds: float = 10.0) -> None:
        self._root = root.resolve()
        self._out = out.resolve()
        self._settle = settle_seconds
        self._files: dict[Path, _File] = {}
        self._recorded: dict[str, str] = {}
        self.name = str(self._root)

    def poll(self, state: State) -> bool:
        """Look through the folder and record the studies that are complete.

        Returns:
            False: all was looked at.

        Raises:
            ArchiveError: the folder itself cannot be read, as when a share is away.
        """
        now = time.time()
        known, self._files = self._files, {}
        youngest: dict[str, float] = {}
        odd = 0
        for path, status in self._walk(self._root):
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            file = known.get(path)
            age = now - _changed(status)
            if file is None or file.stamp != stamp:
                file = _read(path, stamp)
                if file.odd and age < self._settle:
                    continue  # may be half written
                odd += file.odd
            self._files[path] = file
            if file.study is not None:
                youngest[file.study] = min(age, youngest.get(file.study, age))
        if odd:
            log.warning("%s: left alone %d files that show no DICOM study", self.name, odd)
        complete = {study for study, age in youngest.items() if age >= self._settle}
        names: dict[str, list[str]] = {study: [] for study in complete}
        for file in self._files.values():
            if file.study in names:
                names[file.study].append(file.revision)
        found = {study: fingerprint(sops) for study, sops in names.items()}
        new = [Arrival(s, s, f) for s, f in found.items() if self._recorded.get(s) != f]
        if new:
            state.record(queue=new)
        # of studies that are being added to, what was recorded still holds
        self._recorded = {s: f for s, f in self._recorded.items() if s in youngest} | found
        return False

    def _walk(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda e: e.name)
        except OSError as e:
            if folder == self._root:
                cause = e.strerror or type(e).__name__
                raise ArchiveError(self.name, "looking through the folder", cause) from None
            return  # gone since it was listed, or not ours to read
        for entry in inside:
            path = Path(entry.path)
            if entry.name.startswith(".") or path == self._out:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(path)
                elif entry.is_file():
                    yield path, entry.stat()
            except FileNotFoundError:
                continue

    def fetch(self, key: str, folder: Path) -> str:
        """Put the images of a study into a folder, as links named by number.

        Args:
            key: Study Instance UID.
            folder: An empty folder.

        Returns:
            The fingerprint of what is there.

        Raises:
            StudyGone: none of its files is there any more.
        """
        files = {p: f for p, f in self._files.items() if f.study == key and p.is_file()}
        if not files:
            self._recorded.pop(key, None)
            raise StudyGone(self.name)
        for number, path in enumerate(files, 1):
            _link(path, folder / f"{number:06d}.dcm")
        return fingerprint(f.revision for f in files.values())

    def store(self, key: str, files: Sequence[Path], models: Collection[str] = ()) -> int:
        """Put results into the study's folder, whole, in place of all that lies there.

        Args:
            key: Study Instance UID.
            files: They keep their names. Without any there is no folder either.
            models: Of no concern: the folder holds one model's results.

        Returns:
            0: no others are left.
        """
        final = self._out / tag(key)
        building, older = (final.with_name(f".{final.name}.{end}") for end in ("writing", "older"))
        for left in (building, older):
            shutil.rmtree(left, ignore_errors=True)
        if files:
            building.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, building / path.name)
        if final.exists():
            os.replace(final, older)
        if files:
            os.replace(building, final)
        shutil.rmtree(older, ignore_errors=True)
        return 0


def _changed(status: os.stat_result) -> float:
    """When a file was last written, in seconds since the epoch.

    A copy may bring its source's modification time along; what POSIX calls the change time is
    always that of the copy. On Windows that field is the time of creation.
    """
    return status.st_ctime if os.name == "posix" else status.st_mtime


def _read(path: Path, stamp: tuple[int, ...]) -> _File:
    from scrd.data.formats.dicom import read_header

    try:
        if file_format(path) != "DICOM":
            return _File(stamp, None, "", odd=True)
        header = read_header(path)
        content = sha256(path)
    except (ImageError, OSError):
        return _File(stamp, None, "", odd=True)
    if not header.study_uid:
        return _File(stamp, None, "", odd=True)
    if header.own or not header.is_image:
        return _File(stamp, None, "")
    return _File(stamp, header.study_uid, f"{header.sop_uid or path} {content}")


def _link(path: Path, place: Path) -> None:
    try:
        place.symlink_to(path)
    except OSError:  # Windows asks for a privilege
        shutil.copyfile(path, place)
