"""Which normals train and which are tested: as the data set says, or drawn anew at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scrd.data.manifest import Manifest
from scrd.data.record import Record


def split_at_random(manifest: Manifest, seed: int) -> Manifest:
    """Draw train and test normals anew, image by image, whatever group they are of.

    As published work on these collections does it: variants of one slice and images of one patient
    come to lie on both sides. As many normals train and are tested as before; the abnormal images
    stay where they are, and groups keep their names, so that all else is done by group as before.

    Args:
        manifest: of the data set, with normals in both splits or in one.
        seed: of the drawing.

    Returns:
        The same images in the same order, normals with a new split.
    """
    normals = [i for i, record in enumerate(manifest.records) if record.label == 0]
    train = sum(manifest.records[i].split == "train" for i in normals)
    order = np.random.default_rng(seed).permutation(len(normals))
    records = list(manifest.records)
    for place, drawn in enumerate(order):
        i = normals[drawn]
        records[i] = replace(records[i], split="train" if place < train else "test")
    return replace(manifest, records=tuple(records))


def split_facts(records: Sequence[Record]) -> dict[str, int]:
    """How far the test normals are apart from the train normals, as far as groups tell.

    Returns:
        ``tested``, the test normals; ``grouped``, those of them whose group is known; ``torn``,
        those whose group has images among the train normals too; ``train_grouped``, train normals
        whose group is known. Where one of the two knows no group, ``torn`` is 0 and says nothing.
    """
    normals = [record for record in records if record.label == 0]
    train = [r.group for r in normals if r.split == "train" and r.group is not None]
    tested = [r for r in normals if r.split == "test"]
    known = set(train)
    return {
        "tested": len(tested),
        "grouped": sum(r.group is not None for r in tested),
        "torn": sum(r.group in known for r in tested),
        "train_grouped": len(train),
    }
