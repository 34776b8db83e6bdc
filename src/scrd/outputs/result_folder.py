"""One run's results a folder: what a run writes is listed, and what it finds there is not mixed in.

The rule of all commands that fill a folder: the folder lists what was written to it, in
``.scrd-files``. The next run removes what is listed before it writes; it refuses a folder that
holds results which no list names. Files of other names are left alone.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from scrd.system.files import PlaceError

LIST = ".scrd-files"

_TABLES = ("scores", "series", "studies", "errors", "warnings", "marks", "covariates")

RESULTS = frozenset(
    {
        *(f"{name}.csv" for name in _TABLES),
        *(f"{name}.partial.csv" for name in _TABLES),
        *("metrics.json", "report.html", "roc.svg", "histogram.svg", "training.svg"),
    }
)
"""Files that a run may write directly into its folder."""

FOLDERS = frozenset({"overlays", "maps", "dicom"})
"""Folders below it."""


class ResultFolder:
    """A folder that takes the results of one run.

    Attributes:
        folder: where it is.
        unwritten: what could not be made, a sentence each.
    """

    def __init__(self, folder: Path) -> None:
        """Look at it; nothing is changed.

        Raises:
            PlaceError: it holds results that no list names.
        """
        self.folder = folder
        self.unwritten: list[str] = []
        self._list = folder / LIST
        self._listed: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError):
            self._listed = self._list.read_text(encoding="utf-8").splitlines()
        strange = self._strange()
        if strange:
            raise PlaceError(
                f"{folder}: holds results that this version did not list ({strange}); "
                "choose another folder, or delete them"
            )

    def _strange(self) -> str | None:
        known = set(self._listed)
        if not self.folder.is_dir():
            return None
        for name in sorted(RESULTS - known):
            if (self.folder / name).exists():
                return name
        for name in sorted(FOLDERS):
            for path in sorted((self.folder / name).rglob("*")):
                inside = path.relative_to(self.folder).as_posix()
                if inside not in known and not path.is_dir() and not path.name.endswith(".tmp"):
                    return inside
        return None

    def start(self) -> None:
        """Remove what an earlier run wrote, and begin a list with what this one may write.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._listed:
            path = self.folder / name
            # a list that was meddled with shall not lead outside
            if ".." in path.parts or not path.is_relative_to(self.folder):
                continue
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
        for name in FOLDERS:
            for path in sorted((self.folder / name).rglob("*"), reverse=True):
                if path.is_dir() and not path.is_symlink():
                    with suppress(OSError):
                        path.rmdir()
            with suppress(OSError):
                (self.folder / name).rmdir()
        self._list.write_text("".join(f"{name}\n" for name in sorted(RESULTS)), encoding="utf-8")

    def claim(self, path: Path) -> Path:
        """List a file that is about to be written below the folder.

        Raises:
            OSError: the disk is full.
        """
        with open(self._list, "a", encoding="utf-8", errors="backslashreplace") as f:
            f.write(f"{path.relative_to(self.folder).as_posix()}\n")
        return path
