"""The images of a data set that the runs of one seed share, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scrd.bench.cases import Cases, Labelled, choose_cases
from scrd.bench.protocol import split_at_random, split_facts
from scrd.bench.suite import SPLITS
from scrd.config import Config
from scrd.data.cache import load_images
from scrd.data.manifest import read_manifest
from scrd.data.preprocess import Preprocessing
from scrd.data.record import Record
from scrd.errors import ManifestError
from scrd.system.progress import counting
from scrd.training.prepare import Prepared, prepare

LOCALISED = {"brain-tumor-mri": "brain-tumor-boxes"}
"""Data set whose test images bear neither masks nor boxes → folder beside it whose images do."""


@dataclass(frozen=True)
class Material:
    """Everything of a data set that the runs of one seed share, read once.

    Attributes:
        prepared: the train normals, divided.
        test: the test images.
        marked: the images of the data set's entry in :data:`LOCALISED`, if they are there; they
            are localised instead of the test images.
        split: see :func:`scrd.bench.protocol.split_facts`.
        cases: the images whose maps are kept.
    """

    prepared: Prepared
    test: Labelled
    marked: Labelled | None
    split: Mapping[str, int]
    cases: Cases


def read_material(
    folder: Path, config: Config, *, split: str = SPLITS[0], progress: bool = False
) -> Material:
    """Read a data set.

    Args:
        folder: of the data set.
        config: settings, of which those of :func:`scrd.training.prepare.prepare` act.
        split: one of :data:`scrd.bench.suite.SPLITS`; at random it is drawn by the seed.
        progress: tell on standard error how far the work is.

    Raises:
        ManifestError: the data set is not described well, or has no test split.
        TrainingError: too few images or groups to train on.
        ImageError: no test image can be read; the error is that of the first.
    """
    manifest = read_manifest(folder, for_training=True)
    if split != SPLITS[0]:
        manifest = split_at_random(manifest, config.seed)
    prepared = prepare(manifest, config, progress=progress)
    if not prepared.manifest.test:
        raise ManifestError(prepared.manifest.root, "no image in the split 'test'")
    limit = int(config.image_cache_gib * 2**30)
    test = _read(prepared.manifest.test, prepared.preprocessing, limit, progress)
    marked = None
    name = LOCALISED.get(folder.name)
    if name is not None and (folder.parent / name).is_dir():
        marked = _read(
            read_manifest(folder.parent / name).test, prepared.preprocessing, limit, progress
        )
    cases = choose_cases(test if marked is None else marked)
    return Material(prepared, test, marked, split_facts(manifest.records), cases)


def _read(
    records: Sequence[Record], preprocessing: Preprocessing, limit: int, progress: bool
) -> Labelled:
    with counting("reading test images", len(records), progress) as advance:
        stack = load_images(
            [r.source for r in records], preprocessing, memory_limit=limit, on_progress=advance
        )
    if not stack.index:
        raise stack.failures[0]
    return Labelled(tuple(records[i] for i in stack.index), stack)
