"""Small valid images of every format, and ways to damage them; for `fuzz_readers.py`."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

WIDTH, HEIGHT, FRAMES = 37, 43, 3  # numbers that stand out in a file's bytes


def make_seeds() -> list[tuple[str, bytes]]:
    """Format and content of small valid files."""
    return [*_pictures(), *_dicom(), *_nifti()]


def _grey(dtype: Any = np.uint8, frames: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH) if frames is None else (frames, HEIGHT, WIDTH)
    smooth = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) * 3
    return (smooth + rng.integers(0, 9, shape)).astype(dtype)


def _pictures() -> Iterator[tuple[str, bytes]]:
    import tifffile
    from PIL import Image

    def encoded(pixels: np.ndarray, kind: str, mode: str | None = None) -> bytes:
        stream = io.BytesIO()
        image = Image.fromarray(pixels)
        (image.convert(mode) if mode else image).save(stream, kind)
        return stream.getvalue()

    colour = np.stack([_grey()] * 3, axis=-1)
    yield "PNG", encoded(_grey(), "PNG")
    yield "PNG", encoded(_grey(np.uint16), "PNG")
    yield "PNG", encoded(colour, "PNG", "P")
    yield "JPEG", encoded(_grey(), "JPEG")
    yield "JPEG", encoded(colour, "JPEG")
    yield "TIFF", encoded(colour, "TIFF")
    for pixels, compression in ((_grey(np.uint16), None), (_grey(np.float32), "zlib")):
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels, compression=compression, photometric="minisblack")
        yield "TIFF", stream.getvalue()


def _dicom() -> Iterator[tuple[str, bytes]]:
    import pydicom
    from PIL import Image
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence

    def image(pixels: np.ndarray) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.SOPClassUID = pydicom.uid.CTImageStorage
        ds.SOPInstanceUID = "1.2.3"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = "1.2.4", "1.2.5", "P"
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY"]
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [1, 2, 3]
        ds.PixelSpacing, ds.RescaleSlope, ds.RescaleIntercept = [1, 2], 1, -5
        ds.WindowCenter, ds.WindowWidth, ds.PixelPaddingValue = 40, 400, 0
        ds.Rows, ds.Columns, ds.SamplesPerPixel = HEIGHT, WIDTH, 1
        ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
        ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
        ds.HighBit = ds.BitsStored - 1
        if pixels.ndim == 3:
            ds.NumberOfFrames = len(pixels)
        ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        ds["PixelData"].VR = "OW"
        return ds

    def written(ds: Dataset, syntax: str, *, implicit: bool = False, little: bool = True) -> bytes:
        stream = io.BytesIO()
        ds.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            stream, ds, implicit_vr=implicit, little_endian=little, enforce_file_format=True
        )
        return stream.getvalue()

    def table(bits: int) -> Sequence:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [256, 0, bits])
        item.add_new("LUTData", "OW", np.arange(256, dtype="<u2").tobytes())
        return Sequence([item])

    deep = image(_grey(np.uint16))
    yield "DICOM", written(deep, pydicom.uid.ExplicitVRLittleEndian)
    yield "DICOM", written(deep, pydicom.uid.ImplicitVRLittleEndian, implicit=True)
    yield "DICOM", written(deep, pydicom.uid.DeflatedExplicitVRLittleEndian)
    shown = image(_grey(np.uint16))
    shown.Modality, shown.PhotometricInterpretation = "DX", "MONOCHROME1"
    del shown.RescaleSlope, shown.RescaleIntercept  # a table stands in their place
    shown.ModalityLUTSequence, shown.VOILUTSequence = table(8), table(12)
    yield "DICOM", written(shown, pydicom.uid.ExplicitVRLittleEndian)

    palette = image(_grey())
    palette.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        entries = (257 * np.arange(256)).astype("<u2").tobytes()
        setattr(palette, f"{colour}PaletteColorLookupTableData", entries)
    yield "DICOM", written(palette, pydicom.uid.ExplicitVRLittleEndian)

    for name, syntax in (
        ("RLE", pydicom.uid.RLELossless),
        ("JPEG 2000", pydicom.uid.JPEG2000Lossless),
        ("JPEG-LS", pydicom.uid.JPEGLSLossless),
    ):
        for pixels in (_grey(np.uint16), _grey(np.uint8, FRAMES)):
            packed = image(pixels)
            packed.compress(syntax, generate_instance_uid=False)
            yield (
                f"DICOM {name}",
                written(packed, syntax),
            )

    stream = io.BytesIO()
    Image.fromarray(np.stack([_grey()] * 3, axis=-1)).save(stream, "JPEG")
    photograph = image(_grey())
    photograph.SamplesPerPixel, photograph.PlanarConfiguration = 3, 0
    photograph.PhotometricInterpretation = "YBR_FULL_422"
    photograph.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    photograph["PixelData"].VR = "OB"
    yield "DICOM JPEG", written(photograph, pydicom.uid.JPEGBaseline8Bit)

    enhanced = image(_grey(np.uint16, FRAMES))
    del enhanced.RescaleSlope, enhanced.RescaleIntercept  # each frame has its own
    frames = []
    for i in range(FRAMES):
        frame, place, scale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, i]
        scale.RescaleSlope, scale.RescaleIntercept = 1, -i
        frame.PlanePositionSequence = Sequence([place])
        frame.PixelValueTransformationSequence = Sequence([scale])
        frames.append(frame)
    enhanced.PerFrameFunctionalGroupsSequence = Sequence(frames)
    yield "DICOM frames", written(enhanced, pydicom.uid.ExplicitVRLittleEndian)
    enhanced["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    yield "DICOM frames", written(enhanced, pydicom.uid.ExplicitVRLittleEndian)


def _nifti() -> Iterator[tuple[str, bytes]]:
    import nibabel as nib

    for dtype in (np.int16, np.float64):
        image = nib.Nifti1Image(_grey(dtype, FRAMES).T, np.diag([1, 1, 3, 1]))
        image.header.set_slope_inter(2, 1)
        yield "NIfTI", image.to_bytes()
        yield "NIfTI.gz", gzip.compress(image.to_bytes(), mtime=0)


Damage = Callable[[bytearray, np.random.Generator], None]
HUGE = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 65))
    kind = rng.integers(3)
    run = rng.bytes(length) if kind == 0 else bytes([0 if kind == 1 else 255]) * length
    data[start : start + length] = run


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def duplicate(data: bytearray, rng: np.random.Generator) -> None:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 513))
    where = int(rng.integers(len(data)))
    data[where:where] = data[start : start + length] * int(rng.integers(1, 5))


def remove(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 65))]


def set_number(data: bytearray, rng: np.random.Generator) -> None:
    """Put a number at which programs stumble where a length may stand."""
    start = int(rng.integers(len(data)))
    code = str(rng.choice(["<H", ">H", "<I", ">I"]))
    size = struct.calcsize(code)
    data[start : start + size] = struct.pack(code, int(rng.choice(HUGE)) & (256**size - 1))


def inflate(data: bytearray, rng: np.random.Generator) -> None:
    """Replace width, height or frames, wherever the file seems to store them."""
    for number in rng.permutation([WIDTH, HEIGHT, FRAMES])[: rng.integers(1, 3)].tolist():
        for code in rng.permutation(["<H", ">H", "<I", ">I"]).tolist():
            size = struct.calcsize(code)
            wanted = struct.pack(code, number)
            new = int(rng.choice([number + 1, 4 * number, 1000, 9000, 14000, 32767, 65535]))
            for start in range(min(len(data), 4096) - size):
                if data[start : start + size] == wanted and rng.random() < 0.7:
                    data[start : start + size] = struct.pack(code, new)


DAMAGES: tuple[Damage, ...] = (
    flip_bits,
    overwrite,
    truncate,
    duplicate,
    remove,
    set_number,
    inflate,
    inflate,
)


def mutate(kind: str, content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file one to three times; half of the packed ones below their checksums."""
    below = rng.random() < 0.5
    data = bytearray(gzip.decompress(content) if below and kind == "NIfTI.gz" else content)
    for _ in range(rng.integers(1, 4)):
        if data:
            DAMAGES[rng.integers(len(DAMAGES))](data, rng)
    if below and kind == "NIfTI.gz":
        return gzip.compress(bytes(data), mtime=0)
    if below and kind == "PNG":
        _mend_checksums(data)
    return bytes(data)


def _mend_checksums(data: bytearray) -> None:
    start = 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
