"""Lookup tables of DICOM: modality and VOI LUTs, palettes; read by what they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from scrd.data.formats.dicom_elements import elements, is_little_endian, numbers
from scrd.data.formats.info import Refused

_COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True)
class Table:
    """A lookup table.

    Attributes:
        entries: (N,), float64, in [0, 2**bits - 1].
        first: Value that the first entry stands for.
        bits: Of an entry, 8 to 16: as announced, or as many more as the entries need.
        exceeds: The entries need more bits than announced.
    """

    entries: NDArray[np.float64]
    first: int
    bits: int
    exceeds: bool

    def look_up(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The entries of values of any shape; beyond the table its first and last one."""
        where = np.clip(values - self.first, 0, len(self.entries) - 1)
        found: NDArray[np.float64] = self.entries[np.rint(where).astype(np.int64)]
        return found


def lut(place: Dataset, dataset: Dataset, *, signed: bool) -> Table | None:
    """Read the table of an item of a Modality or VOI LUT Sequence; None where it is broken."""
    return _table(place, "LUTDescriptor", "LUTData", dataset, signed)


def through_palette(stored: NDArray[np.generic], dataset: Dataset) -> NDArray[np.uint8]:
    """The (H, W, 3) red, green, blue of (H, W) palette indices (PS3.3, C.7.6.3.1.5 and 6).

    Raises:
        Refused: A table is missing, segmented or broken, or the three are not alike.
    """
    # of 8-bit indices none lies beyond 32767, so that such a first value is a negative one
    signed = stored.dtype.kind == "i" or stored.dtype.itemsize == 1
    tables = []
    for colour in _COLOURS:
        name = f"{colour}PaletteColorLookupTable"
        table = _table(dataset, f"{name}Descriptor", f"{name}Data", dataset, signed)
        if table is None:
            raise Refused("a palette that is missing, segmented or broken")
        tables.append(table)
    if len({(len(table.entries), table.first) for table in tables}) > 1:
        raise Refused("a palette whose red, green and blue differ in size or in first value")
    # eight bits are often written as sixteen, and the other way round
    highest = max(table.entries.max() for table in tables)
    bits = 16 if any(table.exceeds for table in tables) else max(table.bits for table in tables)
    bits = 8 if highest < 256 else bits
    offset = stored.astype(np.int64) - tables[0].first
    index = np.clip(offset, 0, len(tables[0].entries) - 1)
    if (index != offset).all():
        raise Refused("a palette without a colour for any pixel")
    channels = [table.entries.astype(np.uint16) >> (bits - 8) for table in tables]
    return np.stack([colours.astype(np.uint8)[index] for colours in channels], axis=-1)


def _table(
    place: Dataset, descriptor: str, data: str, dataset: Dataset, signed: bool
) -> Table | None:
    """Read a lookup table (PS3.3 C.11.1.1); None where it is absent or broken.

    Args:
        place: Where it stands.
        descriptor: Keyword of the number of entries, the first value mapped and the bits.
        data: Keyword of the entries.
        dataset: The file's.
        signed: Whether the values that are looked up may be negative.
    """
    found = numbers(place, descriptor, 3)
    if found is None:
        return None
    count, first, bits = map(int, found)
    count = count % 2**16 or 2**16
    # writers and readers disagree whether the first value is signed
    first = (first + 2**15) % 2**16 - 2**15 if signed else first % 2**16
    content = elements(place, data)
    if isinstance(content, bytes):
        packed = len(content) < 2 * count
        order = "<u2" if is_little_endian(dataset) else ">u2"
        content = np.frombuffer(content, np.uint8 if packed else order)
        bits = 8 if packed else bits
    entries = np.array(content if content is not None else (), np.float64).ravel()[:count]
    if len(entries) < count or not 8 <= bits <= 16 or not 0 <= entries.min() <= entries.max():
        return None
    needed = int(entries.max()).bit_length()
    return Table(entries, first, max(bits, needed), exceeds=needed > bits)
