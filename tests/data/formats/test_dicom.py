import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundMultiFrameImageStorage,
)

from scrd.data.formats import dicom_file
from scrd.data.formats.dicom import is_dicom, read_dicomdir, read_header, read_pixels
from scrd.errors import ImageError

RNG = np.random.default_rng(0)
BUNDLED = Path(pydicom.__file__).parent / "data"
Make = Callable[..., Path]


def dataset(pixels: np.ndarray, modality: str, sop_class: str, **elements: Any) -> FileDataset:
    """A DICOM image of (H, W), (N, H, W) or, for colour, (H, W, 3) pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_class, "1.2.3", modality
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if pixels.ndim == 3 and not colour:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.HighBit = ds.BitsStored - 1
    ds["PixelData"].VR = "OB" if ds.BitsAllocated <= 8 else "OW"
    return ds


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(
        pixels: np.ndarray,
        modality: str = "CT",
        sop_class: str = CTImageStorage,
        name: str = "image",
        **elements: Any,
    ) -> Path:
        path = tmp_path / name
        dataset(pixels, modality, sop_class, **elements).save_as(path, enforce_file_format=True)
        return path

    return write


def radiograph(make: Make, pixels: np.ndarray, **elements: Any) -> Path:
    return make(pixels, "DX", DigitalXRayImageStorageForPresentation, **elements)


def compress(path: Path, syntax: str) -> None:
    """Write the 16-bit words of a file as one compressed frame."""
    ds = pydicom.dcmread(path)
    words = np.frombuffer(ds.PixelData, np.uint16).reshape(ds.Rows, ds.Columns)
    if syntax == RLELossless:
        ds.compress(RLELossless)
    else:
        codecs = pytest.importorskip("imagecodecs")
        code = codecs.jpeg2k_encode if syntax == JPEG2000Lossless else codecs.jpeg8_encode
        options = (
            {"level": 0, "codecformat": "J2K"}
            if syntax == JPEG2000Lossless
            else {
                "lossless": True,
                "bitspersample": 16,
            }
        )
        ds.PixelData = encapsulate([code(words, **options)])
        ds.file_meta.TransferSyntaxUID = syntax
        ds["PixelData"].is_undefined_length = True
    ds.save_as(path)


def lut(entries: np.ndarray, first: int, bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


U12 = RNG.integers(0, 4096, (7, 5), dtype=np.uint16)
I16 = RNG.integers(-(2**15), 2**15, (7, 5), dtype=np.int16)


# ------------------------------------------------------------------------------- grey values


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("pixels", [U12, I16 // 4], ids=["unsigned", "signed"])
def test_ct_is_in_hounsfield_units(make: Make, pixels: np.ndarray, syntax: str) -> None:
    path = make(pixels, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path)
    found = read_pixels(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels.astype(np.float32) * 2 - 1024)
    np.testing.assert_array_equal(found, apply_modality_lut(pixels, pydicom.dcmread(path)))
    info = read_header(path).info
    assert (info.values, info.modality, info.channels, info.bits) == ("HU", "CT", 1, 16)
    assert (info.width, info.height, info.format) == (5, 7, "DICOM")


@pytest.mark.parametrize(
    ("elements", "values"),
    [
        ({"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, "HU"),
        ({"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "Z_EFF"}, "rescaled"),
        ({}, "rescaled"),
    ],
)
def test_only_ct_with_a_hounsfield_rescale_is_in_hounsfield_units(
    make: Make, elements: dict[str, Any], values: str
) -> None:
    assert read_header(make(I16, **elements)).info.values == values


@pytest.mark.parametrize("modality", ["MR", "PT", "NM"])
def test_mr_and_pet_are_rescaled_and_not_windowed(make: Make, modality: str) -> None:
    window = {"WindowCenter": 100, "WindowWidth": 10}
    path = make(U12, modality, MRImageStorage, RescaleSlope=0.5, RescaleIntercept=3, **window)
    np.testing.assert_array_equal(read_pixels(path), U12.astype(np.float32) / 2 + 3)
    assert read_header(path).info.values == "rescaled"


def test_a_deep_capture_follows_its_modality_and_a_screenshot_is_a_picture(make: Make) -> None:
    deep = make(U12, "MR", SecondaryCaptureImageStorage)
    shot = make(U12.astype(np.uint8), "MR", SecondaryCaptureImageStorage, "shot")
    assert read_header(deep).info.values == "rescaled"
    assert read_header(shot).info.values == "display"
    np.testing.assert_array_equal(read_pixels(shot), U12.astype(np.uint8))


def test_twelve_bits_fill_the_display_range_by_the_header(make: Make) -> None:
    path = radiograph(make, U12 // 2, BitsStored=12)
    np.testing.assert_allclose(read_pixels(path), (U12 // 2) * (255 / 4095), rtol=1e-6)
    assert read_header(path).info.values == "display"
    signed = radiograph(make, I16 // 16, BitsStored=12, RescaleSlope=-1, RescaleIntercept=7)
    wanted = 255 - (I16 // 16 + 2048.0) * (255 / 4095)
    np.testing.assert_allclose(read_pixels(signed), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("compressed", [None, RLELossless, JPEGLosslessSV1, JPEG2000Lossless])
def test_bits_beyond_those_stored_are_refused(make: Make, compressed: str | None) -> None:
    path = radiograph(make, U12 | 0xA000, BitsStored=12)
    if compressed:
        compress(path, compressed)
    with pytest.raises(ImageError, match="more than the 12 bits"):
        read_pixels(path)


def test_colour_and_palettes_beyond_the_stored_bits_are_refused(make: Make) -> None:
    colour = np.full((4, 4, 3), 200, np.uint8)
    for path in (
        make(colour, "US", BitsStored=7),
        make(colour[..., 0], "US", BitsStored=7, PhotometricInterpretation="PALETTE COLOR"),
    ):
        with pytest.raises(ImageError, match="more than the 7 bits"):
            read_pixels(path)


def test_overlays_above_the_stored_bits_are_no_values(make: Make) -> None:
    ds = dataset(U12 | 0xA000, "DX", DigitalXRayImageStorageForPresentation, BitsStored=12)
    ds.add_new(0x60000102, "US", 13)
    path = make(U12)
    ds.save_as(path, enforce_file_format=True)
    np.testing.assert_allclose(read_pixels(path), U12 * (255 / 4095), rtol=1e-6)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("syntax", [None, JPEGLossless, JPEG2000Lossless])
def test_negative_values_may_lack_the_upper_bits_of_their_sign(
    make: Make, extended: bool, syntax: str | None
) -> None:
    signed = (U12.astype(np.int32) - 2048).astype(np.int16)
    words = signed if extended else signed & 0x0FFF
    path = make(words, BitsStored=12, RescaleSlope=1, RescaleIntercept=0)
    if syntax:
        compress(path, syntax)
    np.testing.assert_array_equal(read_pixels(path), signed)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of pydicom's sigmoid
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 0.5, "RescaleIntercept": -300}])
@pytest.mark.parametrize("width", [1, 2, 333.5, 1e5])
def test_windows_are_those_of_pydicom(
    make: Make, function: str | None, rescale: dict[str, float], width: float
) -> None:
    elements = {"WindowCenter": [700, 1], "WindowWidth": [width, 1], "BitsStored": 12, **rescale}
    if function is not None:
        elements["VOILUTFunction"] = function
    if width == 1 and function in (None, "LINEAR"):
        elements["WindowCenter"] = 700.25  # where pydicom does not divide 0 by 0
    path = radiograph(make, U12, **elements)
    ds = pydicom.dcmread(path)
    wanted = apply_voi_lut(apply_modality_lut(U12, ds), ds)
    low, high = apply_modality_lut(np.array([0, 4095], np.uint16), ds).astype(float)
    np.testing.assert_allclose(read_pixels(path), (wanted - low) / (high - low) * 255, atol=1e-4)


@pytest.mark.parametrize("elements", [{"WindowCenter": 9, "WindowWidth": 0}, {"WindowCenter": 9}])
def test_a_window_that_shows_nothing_is_left_out(make: Make, elements: dict[str, Any]) -> None:
    path = radiograph(make, U12, BitsStored=12, **elements)
    np.testing.assert_allclose(read_pixels(path), U12 * (255 / 4095), rtol=1e-6)


@pytest.mark.parametrize("first", [-200, 0, 100])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_voi_tables_are_those_of_pydicom(make: Make, first: int, bits: int) -> None:
    entries = RNG.integers(0, 2**bits, 1500)
    pixels = I16 // 16
    path = radiograph(
        make, pixels, BitsStored=12, VOILUTSequence=lut(entries, first, bits), WindowCenter=5
    )
    ds = pydicom.dcmread(path)
    if bits == 8:  # pydicom looks up 8-bit tables with 8-bit indices
        wanted = entries[np.clip(pixels.astype(int) - first, 0, 1499)]
    else:
        wanted = apply_voi_lut(pixels, ds)
    np.testing.assert_allclose(read_pixels(path), wanted * (255 / (2**bits - 1)), rtol=1e-5)


def test_a_modality_table_comes_before_the_window(make: Make) -> None:
    table = lut(RNG.integers(0, 2**16, 4096), 0, 16)
    window = {"WindowCenter": 30000, "WindowWidth": 20000}
    path = radiograph(make, U12, BitsStored=12, ModalityLUTSequence=table, **window)
    ds = pydicom.dcmread(path)
    wanted = apply_voi_lut(apply_modality_lut(U12, ds), ds)
    np.testing.assert_allclose(read_pixels(path), wanted * (255 / 65535), atol=1e-4)


def test_monochrome1_inverts_what_is_shown_and_nothing_that_is_measured(make: Make) -> None:
    plain = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}
    path = radiograph(make, U12, **plain)
    np.testing.assert_allclose(read_pixels(path), 255 - U12 * (255 / 4095), rtol=1e-5, atol=1e-4)
    assert read_header(path).info.oddities == ()
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -9}
    for modality, sop_class in (("CT", CTImageStorage), ("MR", MRImageStorage)):
        path = make(U12, modality, sop_class, **plain, **rescale)
        np.testing.assert_array_equal(read_pixels(path), U12 * 2.0 - 9)
        # no writer of Hounsfield units means anything else; of a signal some might
        assert bool(read_header(path).info.oddities) == (modality == "MR")


@pytest.mark.parametrize(
    ("photometric", "shape", "odd"),
    [
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_a_presentation_that_contradicts_the_photometry_is_told(
    make: Make, photometric: str, shape: str, odd: bool
) -> None:
    path = radiograph(make, U12, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert ("contradict" in " ".join(read_header(path).info.oddities)) == odd


@pytest.mark.parametrize(
    ("elements", "odd"),
    [
        ({}, False),
        ({"WindowCenter": 512, "WindowWidth": 1024}, False),
        ({"WindowCenter": [512, 40], "WindowWidth": [1024, 80]}, False),
        ({"WindowCenter": 512}, True),
        ({"WindowCenter": 512, "WindowWidth": 0}, True),
        ({"WindowCenter": 512, "WindowWidth": 1024, "VOILUTSequence": []}, False),
        ({"VOILUTSequence": lut(np.arange(9), 0, 20)}, True),
    ],
)
def test_a_window_that_cannot_be_used_is_told(
    make: Make, elements: dict[str, Any], odd: bool
) -> None:
    assert bool(read_header(radiograph(make, U12, **elements)).info.oddities) == odd


def test_a_window_with_a_decimal_comma_is_told(make: Make) -> None:
    path = radiograph(make, U12, WindowCenter="512.5", WindowWidth="1024.0")
    path.write_bytes(path.read_bytes().replace(b"512.5", b"512,5").replace(b"1024.0", b"1024,0"))
    assert "not a number" in read_header(path).info.oddities[0]


# ----------------------------------------------------------------------------- bits of a word


def with_high_bit(make: Make, pixels: np.ndarray, high: int, **elements: Any) -> Path:
    path = make(pixels, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024, **elements)
    ds = pydicom.dcmread(path)
    ds.HighBit = high
    ds.save_as(path)
    return path


@pytest.mark.parametrize("high", [11, 12, 15])
@pytest.mark.parametrize("compressed", [False, True])
def test_stored_bits_are_where_the_high_bit_says(make: Make, high: int, compressed: bool) -> None:
    signed = (U12.astype(np.int32) - 2048).astype(np.int16)
    for values in (U12, signed):
        path = with_high_bit(make, (values << (high - 11)).astype(values.dtype), high)
        if compressed:
            ds = pydicom.dcmread(path)
            ds.compress(RLELossless)
            ds.save_as(path)
        np.testing.assert_array_equal(read_pixels(path), values - 1024.0)


def test_a_high_bit_that_leaves_out_used_bits_is_refused(make: Make) -> None:
    with pytest.raises(ImageError, match="use the lowest 4 bits"):
        read_pixels(with_high_bit(make, U12 | 1, 15))


@pytest.mark.parametrize("high", [0, 10, 16])
def test_an_impossible_high_bit_is_refused(make: Make, high: int) -> None:
    with pytest.raises(ImageError, match=f"12 bits stored in 16, of which the highest is {high}"):
        read_header(with_high_bit(make, U12, high))


def test_overlays_in_the_words_are_no_values(make: Make) -> None:
    path = with_high_bit(make, (U12 << 4) | 0x5, 15)
    ds = pydicom.dcmread(path)
    ds.add_new(0x60000102, "US", 2)
    ds.save_as(path)
    np.testing.assert_array_equal(read_pixels(path), U12 - 1024.0)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PixelRepresentation": 2}, "a pixel representation of 2"),
        ({"PlanarConfiguration": 7}, "a planar configuration of 7"),
        ({"Rows": 6}, "10 more than the header announces"),
        ({"BitsAllocated": 8, "BitsStored": 8}, "35 more than the header announces"),
    ],
)
def test_what_a_header_says_of_words_is_held_against_them(
    make: Make, elements: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ImageError, match=reason):
        read_pixels(make(U12, **elements))


@pytest.mark.parametrize("table", [False, True])
def test_more_frames_than_announced_are_refused(make: Make, table: bool) -> None:
    path = make(np.stack([U12, U12]), "US", UltrasoundMultiFrameImageStorage)
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    if not table:
        ds.PixelData = encapsulate(list(generate_frames(ds.PixelData)), has_bot=False)
    ds.NumberOfFrames = 1
    ds.save_as(path)
    with pytest.raises(ImageError, match="2 frames of compressed pixels, 1 in the header"):
        read_pixels(path)


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_floating_point_pixels_are_read_in_their_unit(make: Make, kind: str) -> None:
    path = make(U12, "MR", MRImageStorage)
    ds = pydicom.dcmread(path)
    values = (U12 / 7 - 3).astype(kind)
    values[0, 0], values[0, 1] = np.nan, -99
    name = "FloatPixel" if kind == "<f4" else "DoubleFloatPixel"
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.BitsAllocated = 8 * values.itemsize
    setattr(ds, f"{name}Data", values.tobytes())
    setattr(ds, f"{name}PaddingValue", -99.0)
    ds.RescaleSlope, ds.RescaleIntercept = 2, 1
    ds.save_as(path)
    wanted = values * 2 + 1
    wanted[0, :2] = np.delete(wanted.ravel(), [0, 1]).min()
    np.testing.assert_allclose(read_pixels(path), wanted, rtol=1e-6)
    assert read_header(path).info.values == "rescaled"
    ds.Modality = "DX"
    ds.save_as(path)
    with pytest.raises(ImageError, match="floating-point pixel data of an image for display"):
        read_pixels(path)


# --------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("written", [63536, 5000, 0x0FFF])
def test_padding_may_lie_outside_the_stored_bits(make: Make, written: int, syntax: str) -> None:
    pixels = np.array([[written, 0, 100], [1024, 7, written]], np.uint16)
    path = make(pixels, BitsStored=12, PixelPaddingValue=written, RescaleIntercept=-1024)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    np.testing.assert_array_equal(read_pixels(path), [[-1024, -1024, -924], [0, -1017, -1024]])


def test_padding_may_be_written_without_its_sign(make: Make) -> None:
    pixels = np.array([[0x0800, 0, 100], [5, 7, 0xF800]], np.uint16).view(np.int16)
    path = make(pixels, BitsStored=12, PixelPaddingValue=-2048, RescaleIntercept=0)
    np.testing.assert_array_equal(read_pixels(path), [[0, 0, 100], [5, 7, 0]])


def test_padding_may_be_written_as_stored_bits_and_more_than_once(make: Make) -> None:
    pixels = np.array([[-2000, 0, 100], [5, 7, -2001]], np.int16)
    path = make(pixels, BitsStored=12, RescaleSlope=1, RescaleIntercept=0)
    ds = pydicom.dcmread(path)
    ds.add_new("PixelPaddingValue", "SS", [4096 - 2000, -2001])
    ds.save_as(path)
    np.testing.assert_array_equal(read_pixels(path), [[0, 0, 100], [5, 7, 0]])


def test_unsigned_padding_is_no_value_of_tissue(make: Make) -> None:
    pixels = np.array([[63536, 2096, 100]], np.uint16)
    path = make(pixels, BitsStored=12, RescaleSlope=1, RescaleIntercept=0)
    ds = pydicom.dcmread(path)
    ds.add_new("PixelPaddingValue", "SS", -2000)
    ds.save_as(path)
    np.testing.assert_array_equal(read_pixels(path), [[100, 2096, 100]])


def test_padding_that_is_no_number_is_refused(make: Make) -> None:
    path = make(U12)
    ds = pydicom.dcmread(path)
    ds.add_new("PixelPaddingValue", "LO", "Doe^Jane")
    ds.save_as(path)
    with pytest.raises(ImageError, match="padding that is no number") as caught:
        read_pixels(path)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("missing", ["BitsStored", "PixelRepresentation"])
def test_what_a_header_leaves_open_about_values_is_told(make: Make, missing: str) -> None:
    path = make(U12)
    ds = pydicom.dcmread(path)
    assert not read_header(path).info.oddities
    delattr(ds, missing)
    ds.save_as(path)
    assert read_header(path).info.oddities


def test_a_missing_photometric_interpretation_is_told(make: Make) -> None:
    path = radiograph(make, U12, PhotometricInterpretation="")
    assert "no photometric interpretation" in read_header(path).info.oddities[0]


def test_an_unknown_window_function_is_told(make: Make) -> None:
    window = {"WindowCenter": 512, "WindowWidth": 1024}
    path = radiograph(make, U12, **window, VOILUTFunction="CURVED")
    assert "not known" in read_header(path).info.oddities[0]


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "reason"),
    [
        ("NumberOfFrames", "LO", "Doe^Jane", "a number of frames that is no number"),
        ("HighBit", "LO", "Doe^Jane", "a high bit that is no number"),
        ("PixelRepresentation", "LO", "Doe^Jane", "a pixel representation that is no number"),
        ("BitsStored", "US", [12, 16], "stored bits of several values"),
        ("BitsStored", "US", 0, "0 bits stored in 16"),
    ],
)
def test_numbers_about_bits_that_are_none_are_refused(
    make: Make, keyword: str, vr: str, value: Any, reason: str
) -> None:
    path = make(U12)
    ds = pydicom.dcmread(path)
    ds.add_new(keyword, vr, value)
    ds.save_as(path)
    with pytest.raises(ImageError, match=reason):
        read_header(path)


@pytest.mark.parametrize(
    ("rescale", "reason"),
    [((1000, 0), "above 32,767"), ((-1, 0), "negative slope"), ((1, 40000), "above 32,767")],
)
def test_impossible_hounsfield_units_are_refused(
    make: Make, rescale: tuple[float, float], reason: str
) -> None:
    with pytest.raises(ImageError, match=reason):
        read_pixels(make(U12, RescaleSlope=rescale[0], RescaleIntercept=rescale[1]))


def test_negative_hounsfield_units_read_as_unsigned_are_refused(make: Make) -> None:
    words = (U12.astype(np.int32) - 1024).astype(np.int16)
    path = make(words, PixelRepresentation=0, RescaleSlope=1, RescaleIntercept=0)
    with pytest.raises(ImageError, match="above 32,767"):
        read_pixels(path)


def test_windows_of_unequal_numbers_are_told(make: Make) -> None:
    path = radiograph(make, U12, WindowCenter=[512, 40], WindowWidth=1024)
    assert "centres than widths" in read_header(path).info.oddities[0]


CODES = ["Modality", "BodyPartExamined", "ViewPosition", "Manufacturer"]


@pytest.mark.parametrize("keyword", CODES)
@pytest.mark.parametrize("value", ["Doe^Jane", "19700131"])
def test_no_name_or_date_is_taken_for_a_code(make: Make, keyword: str, value: str) -> None:
    path = make(U12)
    ds = pydicom.dcmread(path)
    ds.add_new(keyword, "LO", value)
    ds.save_as(path)
    info = read_header(path).info
    assert value.upper() not in (info.modality, info.body_part, info.view, info.manufacturer)


def test_the_manufacturer_is_told(make: Make) -> None:
    assert read_header(make(U12)).info.manufacturer is None
    assert read_header(make(U12, Manufacturer="Hologic, Inc. ")).info.manufacturer == (
        "HOLOGIC, INC."
    )


def with_palette(make: Make, first: int) -> Path:
    indices = np.arange(200, dtype=np.uint8).reshape(10, 20)
    path = make(indices, "US", PhotometricInterpretation="PALETTE COLOR")
    ds = pydicom.dcmread(path)
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        ds.add_new(f"{name}Descriptor", "US", [256, first % 2**16, 16])
        ds.add_new(f"{name}Data", "OW", (np.arange(256, dtype="<u2") * 257).tobytes())
    ds.save_as(path)
    return path


def test_a_palette_may_begin_below_zero(make: Make) -> None:
    shown = read_pixels(with_palette(make, -10))[..., 0]
    np.testing.assert_array_equal(shown.ravel(), np.arange(200) + 10)


def test_a_palette_without_a_colour_for_any_pixel_is_refused(make: Make) -> None:
    with pytest.raises(ImageError, match="without a colour"):
        read_pixels(with_palette(make, 300))


def test_a_table_beside_a_rescale_is_refused(make: Make) -> None:
    table = lut(np.arange(4096), 0, 16)
    with pytest.raises(ImageError, match="both a modality lookup table and a rescale"):
        read_pixels(make(U12, ModalityLUTSequence=table, RescaleSlope=2, RescaleIntercept=-5))
    same = make(U12, ModalityLUTSequence=table, RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(read_pixels(same), U12)


def frames_of_two(make: Make, rescales: list[dict[str, float]], **elements: Any) -> Path:
    path = make(np.stack([U12, U12]), **elements)
    ds = pydicom.dcmread(path)
    groups = []
    for rescale in rescales:
        transformation, group = Dataset(), Dataset()
        for keyword, value in rescale.items():
            setattr(transformation, keyword, value)
        group.PixelValueTransformationSequence = Sequence([transformation])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.save_as(path)
    return path


def test_a_frame_rescaled_otherwise_than_its_file_is_refused(make: Make) -> None:
    scaled = [{"RescaleSlope": 1, "RescaleIntercept": -1024}] * 2
    sound = frames_of_two(make, scaled, RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_array_equal(read_pixels(sound, 1), U12 - 1024.0)
    with pytest.raises(ImageError, match="contradicts that of the file"):
        read_pixels(frames_of_two(make, scaled, RescaleSlope=1, RescaleIntercept=0), 1)


def test_a_frame_without_hounsfield_units_is_refused(make: Make) -> None:
    path = frames_of_two(make, [{"RescaleSlope": 1, "RescaleIntercept": -1024}, {}])
    np.testing.assert_array_equal(read_pixels(path, 0), U12 - 1024.0)
    with pytest.raises(ImageError, match="without a rescale to HU"):
        read_pixels(path, 1)


@pytest.mark.parametrize("inverted", [False, True])
def test_padding_becomes_the_darkest_of_the_rest(make: Make, inverted: bool) -> None:
    pixels = np.array([[-2000, -2000, -5], [0, 7, 100]], np.int16)
    photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
    elements = {"PhotometricInterpretation": photometric, "PixelPaddingValue": -2000}
    path = make(pixels, RescaleSlope=1, RescaleIntercept=-10, **elements)
    np.testing.assert_array_equal(read_pixels(path), [[-15, -15, -15], [-10, -3, 90]])
    window = {"WindowCenter": 0, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}
    shown = read_pixels(radiograph(make, pixels, **elements, **window))
    darkest = 400 if inverted else 495
    wanted = np.array([[darkest, darkest, 495], [500, 507, 600]]) * 255 / 1000
    wanted = np.where(pixels == -2000, wanted, 255 - wanted) if inverted else wanted
    np.testing.assert_allclose(shown, wanted, atol=1e-4)


def test_padding_may_be_a_range_and_unsigned_by_mistake(make: Make) -> None:
    pixels = np.array([[-2000, -1990, -5], [0, 7, 100]], np.int16)
    ds = dataset(pixels, "CT", CTImageStorage, RescaleSlope=1, RescaleIntercept=0)
    ds.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    ds.add_new("PixelPaddingRangeLimit", "SS", -1985)
    path = make(pixels)
    ds.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(read_pixels(path), [[-5, -5, -5], [0, 7, 100]])


def test_an_image_of_padding_alone_stays_as_it_is(make: Make) -> None:
    path = make(np.full((3, 3), 9, np.int16), PixelPaddingValue=9, RescaleIntercept=0)
    np.testing.assert_array_equal(read_pixels(path), np.full((3, 3), 9))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "slope of zero"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": 1}, "beyond the range"),
        ({"ModalityLUTSequence": lut(np.arange(9), 0, 16)[:0]}, None),
        ({"BitsStored": 17}, "17 bits stored in 16"),
        ({"Rows": 0}, "without a size"),
        ({"Rows": 8}, "truncated: 70 bytes of pixel data, 80 are needed"),
        ({"Rows": 65535, "Columns": 65535}, "more than 100,000,000 pixels"),
        ({"NumberOfFrames": 2**31 - 1}, "2147483647 frames"),
        ({"SamplesPerPixel": 3}, "contradicts MONOCHROME2"),
        ({"PhotometricInterpretation": "CMYK"}, "not read"),
    ],
)
def test_contradictions_are_refused(make: Make, elements: dict[str, Any], reason: str) -> None:
    path = make(U12, **elements)
    if reason is None:
        assert read_pixels(path).shape == (7, 5)
        return
    with pytest.raises(ImageError, match=reason):
        read_pixels(path)


def test_a_slope_that_is_no_number_is_refused_and_not_quoted(make: Make) -> None:
    path = make(U12, RescaleSlope="1234567", RescaleIntercept=0)
    path.write_bytes(path.read_bytes().replace(b"1234567 ", b"Doe^Jane"))
    with pytest.raises(ImageError, match="no number") as caught:
        read_pixels(path)
    assert "Doe" not in str(caught.value)


# ------------------------------------------------------------------------------------ colour


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_is_red_green_blue(make: Make, planar: int) -> None:
    pixels = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    stored = pixels.transpose(2, 0, 1) if planar else pixels
    content = stored.tobytes() + b"\0"
    path = make(pixels, "US", PixelData=content, PlanarConfiguration=planar)
    found = read_pixels(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)
    assert read_header(path).info.channels == 3


def test_deep_colour_loses_its_lowest_bits(make: Make) -> None:
    pixels = RNG.integers(0, 4096, (7, 5, 3), dtype=np.uint16)
    np.testing.assert_array_equal(read_pixels(make(pixels, BitsStored=12)), pixels >> 4)


def test_luminance_and_chrominance_become_rgb(make: Make) -> None:
    grey = np.stack([U12.astype(np.uint8), *[np.full((7, 5), 128, np.uint8)] * 2], axis=-1)
    path = make(grey, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(read_pixels(path), np.repeat(grey[..., :1], 3, axis=-1))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_resolved(make: Make, bits: int) -> None:
    pixels = RNG.integers(0, 20, (7, 5), dtype=np.uint8)
    tables = RNG.integers(0, 2**bits, (3, 10))
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [10, 4, bits]
        content = table.astype("u1" if bits == 8 else "<u2").tobytes()
        elements[f"{colour}PaletteColorLookupTableData"] = content
    found = read_pixels(make(pixels, "US", **elements))
    wanted = tables[:, np.clip(pixels.astype(int) - 4, 0, 9)] >> (bits - 8)
    np.testing.assert_array_equal(found, np.moveaxis(wanted, 0, -1))


V = np.arange(256)


@pytest.mark.parametrize(
    ("bits", "entries", "kind"),
    [
        (8, V, "u1"),
        (16, V * 257, "<u2"),
        (8, V * 257, "<u2"),
        (16, V, "u1"),
        (16, V, "<u2"),
        (12, V * 257, "<u2"),
        (8, V, "<u2"),
    ],
)
def test_a_palette_is_read_by_what_it_holds(
    make: Make, bits: int, entries: np.ndarray, kind: str
) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, turned in (("Red", entries), ("Green", entries[::-1]), ("Blue", entries // 2)):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = turned.astype(kind).tobytes()
    found = read_pixels(make(pixels, "US", **elements))
    wanted = np.stack([pixels, 255 - pixels, pixels // 2], axis=-1)
    np.testing.assert_array_equal(found, wanted)


def test_a_palette_of_unequal_colours_is_refused(make: Make) -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, count in (("Red", 256), ("Green", 200), ("Blue", 256)):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [count, 0, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = V.astype("u1")[:count].tobytes()
    with pytest.raises(ImageError, match="red, green and blue differ in size"):
        read_pixels(make(U12.astype(np.uint8), "US", **elements))


def test_a_display_table_of_more_bits_than_announced_is_not_cut(make: Make) -> None:
    entries = np.arange(4096)[::-1]
    path = radiograph(make, U12, BitsStored=12, VOILUTSequence=lut(entries, 0, 8))
    np.testing.assert_allclose(read_pixels(path), (4095 - U12) * (255 / 4095), rtol=1e-5)


# ------------------------------------------------------------------- frames, syntaxes, files


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_are_read_one_by_one(make: Make, compressed: bool) -> None:
    pixels = RNG.integers(0, 256, (4, 7, 5), dtype=np.uint8)
    path = make(pixels, "US", UltrasoundMultiFrameImageStorage)
    if compressed:
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(path)
    for frame in range(4):
        np.testing.assert_array_equal(read_pixels(path, frame), pixels[frame])
    assert read_header(path).frames == 4
    for wrong, reason in ((None, "4 frames in one file"), (4, "no frame 4"), (-1, "no frame -1")):
        with pytest.raises(ImageError, match=reason):
            read_pixels(path, wrong)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_native_transfer_syntaxes(make: Make, syntax: str) -> None:
    path = make(I16, RescaleSlope=1, RescaleIntercept=-5)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = I16.astype(">i2").tobytes()
    explicit = syntax != ImplicitVRLittleEndian
    little = syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(path, ds, implicit_vr=not explicit, little_endian=little)
    np.testing.assert_array_equal(read_pixels(path), I16 - 5.0)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_without_preamble_is_dicom(make: Make, syntax: str) -> None:
    path = make(U12, RescaleSlope=1, RescaleIntercept=0)
    ds = pydicom.dcmread(path)
    bare = Dataset({element.tag: element for element in ds})
    bare.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    with open(path, "rb") as stream:
        assert is_dicom(stream)
    np.testing.assert_array_equal(read_pixels(path), U12)


@pytest.mark.parametrize(
    "start",
    [
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF", b"BM\x36\0\0\0", b"II*\0\x08\0\0\0"),
        *(b"MM\0*\0\0\0\x08", b"\x5c\x01\0\0", b"path,label,class\n", b"", b"\x08", bytes(300)),
        *(b"\x08\0\x05\0\xff\xff\xff\xff", b"\x08\0\xff\xffCS\x02\0", b"\x08\0\x05\0CS\xff\xff"),
    ],
)
def test_other_files_are_not_taken_for_dicom(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "file").write_bytes(start + (b"\xff" * 300 if start else b""))
    with open(tmp_path / "file", "rb") as stream:
        assert not is_dicom(stream)


def test_a_compressed_image_larger_than_announced_is_refused(make: Make) -> None:
    for name in ("JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        path = make(U12)
        ds = pydicom.dcmread(BUNDLED / "test_files" / name)
        read_pixels(BUNDLED / "test_files" / name)
        ds.Rows //= 2
        ds.save_as(path)
        with pytest.raises(ImageError, match="where the header announces"):
            read_pixels(path)


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.102", "1.2.3.4.5"])
def test_a_transfer_syntax_without_decoder_is_named(make: Make, uid: str) -> None:
    path = make(U12)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
    ds.PixelData = pydicom.encaps.encapsulate([b"film"])
    ds.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(ImageError, match="transfer syntax that is not read") as caught:
        read_pixels(path)
    assert ("MPEG-4" in caught.value.reason) == (uid != "1.2.3.4.5")
    assert "1.2.3.4.5" not in caught.value.reason


def test_a_decoder_that_is_not_installed_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(U12)
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)
    decoder = pydicom.pixels.decoders.RLELosslessDecoder
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(ImageError, match=r"RLE Lossless needs the extra dicom"):
        read_pixels(path)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # pytest has dropped our filter
def test_whatever_pydicom_brings_is_read_or_refused_with_a_reason() -> None:
    read, refused = 0, []
    for path in sorted(p for p in BUNDLED.rglob("*") if p.is_file()):
        with open(path, "rb") as stream:
            if not is_dicom(stream):
                continue
        try:
            header = read_header(path)
            pixels = read_pixels(path, None if header.frames == 1 else 0)
        except ImageError as error:
            refused.append(error.reason)
            continue
        read += 1
        info = header.info
        assert pixels.shape == (info.height, info.width) + (3,) * (info.channels == 3)
        assert np.isfinite(pixels).all()
        if info.values == "display":
            assert 0 <= pixels.min() <= pixels.max() <= 255
    assert read >= 75
    assert len(refused) >= 75
    assert all(10 < len(reason) < 100 for reason in refused)


# ------------------------------------------------------------------------------------ header


def test_a_header_says_what_series_and_contracts_need(make: Make) -> None:
    path = make(
        U12,
        SOPInstanceUID="1.1",
        StudyInstanceUID="1.2",
        SeriesInstanceUID="1.3",
        FrameOfReferenceUID="1.4",
        PatientID="P 1",
        IssuerOfPatientID="H",
        InstanceNumber=7,
        AcquisitionNumber=2,
        EchoNumbers=3,
        TemporalPositionIdentifier=4,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        BodyPartExamined="chest ",
        ViewPosition="ap",
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        ImagePositionPatient=[1, 2, 3.5],
        PixelSpacing=[0.5, 0.25],
        Manufacturer="scrd",
    )
    header = read_header(path)
    assert (header.sop_class, header.sop_uid) == (CTImageStorage, "1.1")
    assert (header.study_uid, header.series_uid, header.frame_of_reference) == ("1.2", "1.3", "1.4")
    assert (header.instance_number, header.frames, header.own) == (7, 1, True)
    assert header.orientations == ((0, 1, 0, 0, 0, -1),)
    assert header.positions == ((1, 2, 3.5),)
    assert header.keys == ((2, 3, 4, None),)
    info = header.info
    assert (info.plane, info.spacing, info.localizer) == ("sagittal", (0.5, 0.25), True)
    assert (info.body_part, info.view) == ("CHEST", "AP")
    assert header.patient is not None and len(header.patient) == 64
    other = read_header(make(U12, name="b", PatientID="P 1", IssuerOfPatientID="G"))
    assert other.patient not in (None, header.patient)
    assert read_header(make(U12, name="c")).patient is None
    assert "P 1" not in repr(header)


def test_nonsense_in_a_header_reads_as_nothing(make: Make) -> None:
    header = read_header(
        make(
            U12,
            ImageOrientationPatient=[1, 0, 0, 1, 0, 0],
            ImagePositionPatient=["1", "2", "1e999"],
            PixelSpacing=[0, 1],
            BodyPartExamined="",
        )
    )
    assert (header.orientations, header.positions) == ((None,), (None,))
    assert (header.info.spacing, header.info.plane, header.info.body_part) == (None, None, None)
    assert header.own is header.info.localizer is False


def test_a_radiograph_has_the_spacing_of_its_detector(make: Make) -> None:
    path = radiograph(make, U12, ImagerPixelSpacing=[0.1, 0.2])
    assert read_header(path).info.spacing == (0.1, 0.2)


def enhanced(pixels: np.ndarray) -> dict[str, Any]:
    def one(**elements: Any) -> Sequence:
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        return Sequence([item])

    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = one(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    shared.PixelMeasuresSequence = one(PixelSpacing=[2, 3])
    for i in range(len(pixels)):
        frame = Dataset()
        frame.PlanePositionSequence = one(ImagePositionPatient=[0, i, 0])
        frame.PixelValueTransformationSequence = one(
            RescaleSlope=i + 1, RescaleIntercept=-i, RescaleType="US"
        )
        frame.FrameContentSequence = one(TemporalPositionIndex=i + 5)
        frame.MREchoSequence = one(EffectiveEchoTime=12.5)
        frames.append(frame)
    return {
        "SharedFunctionalGroupsSequence": Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": Sequence(frames),
    }


@pytest.mark.parametrize("undefined_length", [False, True])
def test_an_enhanced_image_has_a_place_and_a_scale_for_each_frame(
    make: Make, undefined_length: bool
) -> None:
    pixels = RNG.integers(0, 4096, (3, 7, 5), dtype=np.uint16)
    ds = dataset(pixels, "MR", EnhancedMRImageStorage, **enhanced(pixels))
    ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined_length
    path = make(pixels)
    ds.save_as(path, enforce_file_format=True)
    header = read_header(path)
    assert header.positions == ((0, 0, 0), (0, 1, 0), (0, 2, 0))
    assert header.orientations == ((1, 0, 0, 0, 0, -1),) * 3
    assert header.keys == tuple((None, 12.5, t, None) for t in (5, 6, 7))
    assert (header.info.plane, header.info.spacing) == ("coronal", (2, 3))
    for i in range(3):
        np.testing.assert_array_equal(read_pixels(path, i), pixels[i] * (i + 1.0) - i)


def test_frames_without_functional_groups_have_no_position(make: Make) -> None:
    path = make(np.zeros((2, 3, 4), np.uint8), ImagePositionPatient=[1, 2, 3])
    assert read_header(path).positions == (None, None)


def test_objects_without_images_are_told_apart(make: Make) -> None:
    segmentation = read_header(make(U12, "SEG", SegmentationStorage))
    report = read_header(BUNDLED / "test_files" / "test-SR.dcm")
    for header in (segmentation, report):
        assert not header.is_image
        with pytest.raises(ImageError, match="not an image of a patient"):
            _ = header.info
        with pytest.raises(ImageError, match="not an image of a patient"):
            read_pixels(header.path)


def test_an_image_cut_off_before_its_pixels_is_refused(make: Make) -> None:
    path = make(U12)
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(ImageError, match="without pixel data"):
        read_header(path)


# ---------------------------------------------------------------------------------- DICOMDIR


def test_a_dicomdir_lists_its_files() -> None:
    path = BUNDLED / "test_files" / "dicomdirtests" / "DICOMDIR"
    if not path.is_file():
        pytest.skip("pydicom comes without its DICOMDIR test files")
    files = read_dicomdir(path)
    assert len(files) == len(set(files)) == 31
    assert all(path.parent in file.parents and file.is_file() for file in files)


@pytest.mark.parametrize(
    ("file_id", "listed"),
    [
        (["A", "IMAGE"], ("A", "IMAGE")),
        ("IMAGE", ("IMAGE",)),
        (["..", "IMAGE"], None),
        ("/etc/passwd", None),
        ("C:", None),
    ],
)
def test_a_dicomdir_does_not_lead_out_of_its_folder(
    make: Make, file_id: Any, listed: tuple[str, ...] | None
) -> None:
    record, empty = Dataset(), Dataset()
    record.ReferencedFileID = file_id
    path = make(U12, name="DICOMDIR", DirectoryRecordSequence=Sequence([empty, record, record]))
    if listed is None:
        with pytest.raises(ImageError, match="outside its folder"):
            read_dicomdir(path)
    else:
        assert read_dicomdir(path) == [path.parent.joinpath(*listed)]
    with pytest.raises(ImageError, match="not a DICOMDIR"):
        read_dicomdir(make(U12))


# ------------------------------------------------------------------- hostile and private files


def element(group: int, number: int, vr: bytes, length: int) -> bytes:
    head = group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr
    if vr in (b"SQ", b"OB", b"UN"):
        return head + bytes(2) + length.to_bytes(4, "little")
    return head + length.to_bytes(2, "little")


UNDEFINED = 0xFFFFFFFF
ITEM = b"\xfe\xff\x00\xe0"


def inserted(path: Path, content: bytes) -> Path:
    """Put raw elements of group 0029 in front of the pixel data."""
    whole = path.read_bytes()
    start = whole.index(element(0x7FE0, 0x0010, b"OW", 0)[:6])
    path.write_bytes(whole[:start] + content + whole[start:])
    return path


def test_sequences_nested_without_end_are_refused(make: Make) -> None:
    deeper = element(0x0029, 0x1010, b"SQ", UNDEFINED) + ITEM + UNDEFINED.to_bytes(4, "little")
    with pytest.raises(ImageError, match="nested too deep"):
        read_header(inserted(make(U12), deeper * 5000))


def test_a_header_of_countless_items_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_file, "_MAX_READS", 10_000)
    monkeypatch.setattr(dicom_file, "_MAX_ITEMS", 10_000)
    items = (ITEM + bytes(4)) * 20_000
    private = element(0x0029, 0x1010, b"SQ", UNDEFINED) + items
    frames = element(0x5200, 0x9230, b"SQ", len(items)) + items
    for name, content in (("private", private), ("frames", frames)):
        with pytest.raises(ImageError, match="too many elements"):
            read_header(inserted(make(U12, name=name), content))


def test_a_private_value_that_fills_the_file_is_not_read(make: Make) -> None:
    path = inserted(make(U12), element(0x0029, 0x1010, b"OB", 2**31 - 2))
    with pytest.raises(ImageError, match="without pixel data"):
        read_header(path)


def test_deflated_data_do_not_burst(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(np.zeros((999, 999), np.uint16))
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=True)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(dicom_file, "_MAX_INFLATED", 1 << 20)
    with pytest.raises(ImageError, match="deflated data above 1 MiB"):
        read_pixels(path)


def test_nothing_of_a_patient_is_logged_or_told(
    make: Make, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    path = make(
        U12, PatientName="Doe^Jane", PatientID="0815", PatientBirthDate="19500101", WindowCenter="1"
    )
    secrets = (b"Doe^Jane", b"0815", b"19500101")
    content = bytearray(path.read_bytes())
    told = []
    for position in range(0, len(content), 7):
        broken = bytearray(content)
        broken[position] ^= 0xFF
        path.write_bytes(bytes(broken))
        try:
            read_header(path)
            read_pixels(path)
        except ImageError as error:
            told.append(error.reason)
    assert len(set(told)) > 3
    everything = " ".join([*told, caplog.text, *(str(w.message) for w in recwarn.list)])
    assert not any(secret.decode() in everything for secret in secrets)


def test_the_programs_own_settings_of_pydicom_stay(make: Make, recwarn: Any) -> None:
    logger = logging.getLogger("pydicom")
    level, mode = logger.level, pydicom.config.settings.reading_validation_mode
    before = list(warnings.filters)
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    logger.setLevel(logging.INFO)
    try:
        path = make(U12, WindowCenter="1", WindowWidth="2")
        path.write_bytes(path.read_bytes().replace(b"ISO", b"XXX"))
        read_pixels(path)
        read_header(path)
        assert logger.level == logging.INFO
        assert pydicom.config.settings.reading_validation_mode == pydicom.config.RAISE
        assert warnings.filters == before
    finally:
        pydicom.config.settings.reading_validation_mode = mode
        logger.setLevel(level)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_lossless_jpeg_keeps_every_value(make: Make, bits: int, syntax: str) -> None:
    codecs = pytest.importorskip("imagecodecs")
    kind = np.uint8 if bits == 8 else np.uint16
    pixels = RNG.integers(0, 2**bits, (24, 17)).astype(kind)
    frame = codecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits)
    path = make(
        pixels, "MR", MRImageStorage, BitsStored=bits, RescaleIntercept=-1024, RescaleSlope=1
    )
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = pydicom.encaps.encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds.save_as(path, implicit_vr=False, little_endian=True)
    np.testing.assert_array_equal(read_pixels(path), pixels - 1024.0)


def test_lossless_jpeg_in_colour(make: Make) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = RNG.integers(0, 256, (24, 17, 3), dtype=np.uint8)
    frame = codecs.jpeg8_encode(pixels, lossless=True, colorspace="RGB", outcolorspace="RGB")
    path = make(pixels, "US", UltrasoundMultiFrameImageStorage)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = JPEGLossless
    ds.PixelData = pydicom.encaps.encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds.save_as(path, implicit_vr=False, little_endian=True)
    np.testing.assert_array_equal(read_pixels(path), pixels)


def test_twelve_bit_jpeg_is_that_of_pydicoms_own_file() -> None:
    codecs = pytest.importorskip("imagecodecs")
    path = BUNDLED / "test_files" / "JPEG-lossy.dcm"
    ds = pydicom.dcmread(path)
    frame = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
    expected = codecs.jpeg8_decode(frame).astype(np.float64)
    assert expected.max() > 255
    shown = read_pixels(path)
    order = np.argsort(expected.ravel(), kind="stable")
    assert (np.diff(shown.ravel()[order]) >= 0).all()
