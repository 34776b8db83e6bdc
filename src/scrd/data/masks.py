"""Which files of a folder tree are masks, and of which image each is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from scrd.data.finding import File
from scrd.data.names import holds_masks, is_mask_name, split_of, without_mask_name
from scrd.data.record import Record
from scrd.data.tables import some

_IMAGES = ("image", "images", "img", "imgs")  # beside "mask", "masks", ...


def set_aside(images: Iterable[File]) -> tuple[list[File], list[File]]:
    """Tell images from masks, by the names of files and of the folders above them."""
    kept: list[File] = []
    masks: list[File] = []
    for file in images:
        mask = is_mask_name(_stem(file.parts[-1])) or any(map(holds_masks, file.parts[:-1]))
        (masks if mask else kept).append(file)
    return kept, masks


def add_masks(
    records: Sequence[Record], images: Sequence[File], masks: Sequence[File]
) -> tuple[list[Record], list[str]]:
    """Give the test images of a tree their masks.

    A mask belongs to the image of the same class folder and name, whatever its suffix, capitals,
    "_mask" or the like at the end, and the folders of masks and splits above it.

    Args:
        records: The N images.
        images: Their N files.
        masks: The files of masks.

    Returns:
        The images with their masks; and in sentences, which masks fit no image or not alone, and
        which abnormal images have none though others have.
    """
    if not masks:
        return list(records), []
    named: dict[tuple[str, ...], list[int]] = {}
    for k, image in enumerate(images):
        named.setdefault(_key(image), []).append(k)
    fitting: dict[int, list[File]] = {}
    lost: list[str] = []
    for mask in masks:
        split = next(filter(None, map(split_of, mask.parts[:-1])), None)
        found = named.get(_key(mask), [])
        if not found:
            lost.append("/".join(mask.parts))
        for k in found:
            if records[k].split == "test" and split in (None, "test"):
                fitting.setdefault(k, []).append(mask)
    notes = []
    if lost:
        notes.append(f"{len(lost)} masks fit no image: {some(lost)}")
    several = [records[k].name for k, found in fitting.items() if len(found) > 1]
    if several:
        notes.append(f"{len(several)} images have several masks, and none is used: {some(several)}")
    single = {k: found[0].path for k, found in fitting.items() if len(found) == 1}
    bare = [
        record.name
        for k, record in enumerate(records)
        if record.split == "test" and record.label == 1 and k not in fitting
    ]
    if fitting and bare:
        notes.append(f"{len(bare)} abnormal test images have no mask: {some(bare)}")
    return [replace(r, mask=single[k]) if k in single else r for k, r in enumerate(records)], notes


def _stem(name: str) -> str:
    stem = name.removesuffix(".gz").rpartition(".")[0]
    return stem or name


def _key(file: File) -> tuple[str, ...]:
    folders = [
        folder.casefold()
        for folder in file.parts[:-1]
        if split_of(folder) is None and not holds_masks(folder) and folder.lower() not in _IMAGES
    ]
    return (*folders, without_mask_name(_stem(file.parts[-1])))
