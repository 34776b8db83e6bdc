"""The maps of a few cases, kept beside the results file in one unit for all methods."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scrd.bench.cases import Cases, Labelled
from scrd.bench.results import ResultsError, digest
from scrd.data.preprocess import Preprocessing, content_masks, map_to_source
from scrd.system.files import atomic

STRIDE = 4
"""Every so manieth row and column of a normal's map is counted."""
_SOME = (slice(STRIDE // 2, None, STRIDE),) * 2


class Pictures(NamedTuple):
    """The cases of a data set: what a screen shows, uint8, and where lesions are, bool (h, w)."""

    images: list[NDArray[np.uint8]]
    marks: list[NDArray[np.bool_]]
    by_size: bool


def rarity(values: NDArray[np.floating], normal: NDArray[np.floating]) -> NDArray[np.float16]:
    r"""How rare a value is among those of normals: :math:`-\log_{10} \frac{1 + n_{\ge}}{1 + n}`.

    0 where every normal pixel is as high, 3 where one in a thousand is. It depends on the order of
    a method's values alone, so that methods of any unit are shown by one rule.

    Args:
        values: of any shape, finite.
        normal: (n,), finite; n_≥ of them are at least as high as a value.

    Returns:
        Float16, of the shape of ``values``, from 0 to log10(1 + n).
    """
    rising = np.sort(normal)
    above = len(rising) - np.searchsorted(rising, values, side="left")
    return np.asarray(-np.log10((1 + above) / (1 + len(rising))), dtype=np.float16)


class KeptMaps:
    """Takes the maps of a run as they come, and keeps those of the cases.

    Args:
        cases: whose maps are wanted.
        test: whose normals say what is rare.
        preprocessing: with which both became input.
    """

    def __init__(self, cases: Cases, test: Labelled, preprocessing: Preprocessing) -> None:
        self._cases, self._test, self._preprocessing = cases, test, preprocessing
        self._normal: dict[int, NDArray[np.float32]] = {}
        self._maps: dict[int, NDArray[np.float32]] = {}

    def of_test(self, first: int, maps: Tensor) -> None:
        """Take the maps (B, S, S), float32, on the CPU, of the test images from ``first`` on."""
        for place, one in enumerate(maps.numpy(), start=first):
            if self._test.records[place].label == 0:
                self._normal[place] = one[_SOME].copy()
        if self._cases.images is self._test:
            self.of_cases(first, maps)

    def of_cases(self, first: int, maps: Tensor) -> None:
        """Take the maps of the images that the cases belong to, where they are not the test's."""
        for place, one in enumerate(maps.numpy(), start=first):
            if place in self._cases.places:
                size = self._cases.size(place)
                self._maps[place] = map_to_source(one, size, self._preprocessing)

    def write(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Write the maps of a run, and the cases themselves if they are not there yet.

        Nothing is written of a method without maps, or of a set without normals or lesions.
        """
        if not self._normal or not self._maps:
            return
        folder.mkdir(parents=True, exist_ok=True)
        some = (slice(None), *_SOME)
        sizes = [self._test.stack.source_sizes[place] for place in self._normal]
        inside = content_masks(sizes, self._preprocessing)[some]
        normal = np.stack(list(self._normal.values()))[inside]
        maps = [rarity(self._maps[place], normal) for place in self._cases.places]
        _write(maps_file(folder, key), {f"map{i}": one for i, one in enumerate(maps)})
        path = cases_file(folder, key)
        if not path.is_file():
            arrays: dict[str, NDArray[Any]] = {"by_size": np.array(self._cases.by_size)}
            for i, (image, marks) in enumerate(self._cases.pictures()):
                arrays |= {f"image{i}": image, f"mark{i}": marks}
            _write(path, arrays)


def maps_folder(results: Path) -> Path:
    """Where the maps of a results file lie: ``results.maps`` beside ``results.jsonl``."""
    return results.with_suffix(".maps")


def maps_file(folder: Path, key: Mapping[str, Any]) -> Path:
    """The file with the maps of a run."""
    return folder / f"{digest(key)}.npz"


def cases_file(folder: Path, key: Mapping[str, Any]) -> Path:
    """The file with the cases of a run's data set."""
    return folder / f"{key['data']}-{key['fingerprint'][:12]}.npz"


def read_maps(folder: Path, key: Mapping[str, Any]) -> list[NDArray[np.float16]] | None:
    """The :func:`rarity` of each case, (h, w); None where they were not kept.

    Raises:
        ResultsError: the file is damaged.
    """
    found = _read(maps_file(folder, key))
    return None if found is None else _numbered(found, "map")


def read_pictures(folder: Path, key: Mapping[str, Any]) -> Pictures | None:
    """The cases of a run's data set; None where they were not kept.

    Raises:
        ResultsError: the file is damaged.
    """
    found = _read(cases_file(folder, key))
    if found is None:
        return None
    return Pictures(_numbered(found, "image"), _numbered(found, "mark"), bool(found["by_size"]))


def _numbered(arrays: Mapping[str, NDArray[Any]], name: str) -> list[NDArray[Any]]:
    return [arrays[f"{name}{i}"] for i in range(sum(key.startswith(name) for key in arrays))]


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        raise ResultsError(f"{path}: no file of maps: {e}") from e
