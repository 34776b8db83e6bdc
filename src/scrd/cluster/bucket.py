"""Pictures in a bucket, or wherever else PyArrow has a file system for: ``s3://``, ``gs://``."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from scrd.data.finding import PICTURE_SUFFIXES
from scrd.data.series import Listing, list_sources
from scrd.data.source import Source
from scrd.errors import ConfigError, ImageError
from scrd.system.extras import needs

_TRANSFERS = 16  # at a time


@dataclass(frozen=True)
class Remote(Source):
    """A picture that is fetched to be scored.

    Attributes:
        uri: its address, without credentials and options.
        root: the address that it was found below, as the user gave it.
        key: its path in the file system of ``root``.
    """

    uri: str = ""
    root: str = ""
    key: str = ""

    def __str__(self) -> str:
        """The address."""
        return self.uri


def is_uri(path: str) -> bool:
    """Whether a path names something outside the file systems of this machine."""
    return "://" in path


def list_places(paths: Sequence[str]) -> Listing:
    """List the images of local files and folders, and the pictures below addresses.

    Raises:
        ImageError: a folder holds no images.
        ConfigError: an address holds none, or cannot be reached.
    """
    local = list_sources([Path(path) for path in paths if not is_uri(path)])
    remote = [source for path in paths if is_uri(path) for source in _pictures(path)]
    return replace(local, sources=(*local.sources, *remote))


def _pictures(root: str) -> list[Remote]:
    """The files with a usual suffix of pictures, sorted; those of hidden folders left out."""
    try:
        from pyarrow import fs
    except ImportError as error:
        raise ConfigError(needs(_shown(root), "ray")) from error
    try:
        system, base = fs.FileSystem.from_uri(root)
        found = system.get_file_info(base)
        files = [found]
        if found.type == fs.FileType.Directory:
            files = system.get_file_info(fs.FileSelector(base, recursive=True))
    except (OSError, ValueError) as error:
        reason = str(error).replace(root, _shown(root))
        raise ConfigError(f"{_shown(root)}: cannot be listed: {reason}") from None
    scheme = root.partition("://")[0]
    keys = sorted(f.path for f in files if f.type == fs.FileType.File and _is_picture(f.path, base))
    if not keys:
        raise ConfigError(f"{_shown(root)}: no pictures there")
    return [Remote(Path(key), uri=f"{scheme}://{key}", root=root, key=key) for key in keys]


def _shown(root: str) -> str:
    """An address without the credentials and options that may be in it."""
    parts = urlsplit(root)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def _is_picture(key: str, base: str) -> bool:
    below = PurePosixPath(key[len(base) :])
    hidden = any(part.startswith(".") for part in below.parts)
    return PurePosixPath(key).suffix.lower() in PICTURE_SUFFIXES and not hidden


@contextmanager
def fetched(sources: Sequence[Source]) -> Iterator[list[Source | ImageError]]:
    """Local copies of the remote ones among some images, for the length of a ``with`` block.

    Yields:
        One for each source, in order: itself, the source of its copy, or why it has none.
    """
    if not any(isinstance(source, Remote) for source in sources):
        yield list(sources)
        return
    with (
        tempfile.TemporaryDirectory(prefix="scrd-") as folder,
        ThreadPoolExecutor(_TRANSFERS) as pool,
    ):
        yield list(pool.map(partial(_fetch, Path(folder)), itertools.count(), sources))


def _fetch(folder: Path, number: int, source: Source) -> Source | ImageError:
    if not isinstance(source, Remote):
        return source
    copy = folder / f"{number}{source.path.suffix}"
    try:
        _download(source, copy)
    except (OSError, ValueError) as error:
        return ImageError(source.path, f"cannot be fetched: {error}")
    return Source(copy)


def _download(source: Remote, target: Path) -> None:
    from pyarrow import fs

    system, _ = fs.FileSystem.from_uri(source.root)
    with system.open_input_stream(source.key) as stream, open(target, "wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
