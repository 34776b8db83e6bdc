import logging
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from scrd.data.finding import find_images
from scrd.data.reading import read_image, read_info
from scrd.errors import ImageError

Png16 = Callable[..., bytes]
RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
RGB8 = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (7, 5), dtype=np.uint16)
RGB16 = RNG.integers(0, 65536, (7, 5, 3), dtype=np.uint16)


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
@pytest.mark.parametrize("pixels", [GREY8, RGB8], ids=["grey", "rgb"])
def test_eight_bits_are_read_as_stored(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(pixels).save(path)
    assert_same(read_image(path), pixels)
    info = read_info(path)
    assert (info.width, info.height, info.bits) == (5, 7, 8)
    assert info.channels == (1 if pixels.ndim == 2 else 3)


@pytest.mark.parametrize("pixels", [GREY8, RGB8], ids=["grey", "rgb"])
def test_jpeg_is_what_pillow_decodes(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(pixels).save(path, quality=90)
    assert_same(read_image(path), np.asarray(Image.open(path)))
    assert read_info(path).format == "JPEG"


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path)
    np.testing.assert_allclose(read_image(path)[4, 4], (255, 0, 0), atol=4)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_keeps_every_bit(
    tmp_path: Path, png16: Png16, channels: int, interlaced: bool
) -> None:
    pixels = RNG.integers(0, 65536, (13, 11, channels), dtype=np.uint16)
    path = tmp_path / "image.png"
    path.write_bytes(png16(pixels, interlaced))
    assert_same(read_image(path), pixels[..., 0] if channels <= 2 else pixels[..., :3])
    info = read_info(path)
    assert (info.channels, info.bits) == (1 if channels <= 2 else 3, 16)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("pixels", [GREY16, RGB16], ids=["grey", "rgb"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_tiff(
    tmp_path: Path, byteorder: str, pixels: np.ndarray, compression: str | None
) -> None:
    path = tmp_path / "image.tif"
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(
        path, pixels, byteorder=byteorder, photometric=photometric, compression=compression
    )
    assert_same(read_image(path), pixels)
    assert (read_info(path).bits, read_info(path).format) == (16, "TIFF")


def test_sixteen_bit_tiff_in_lzw_and_in_separate_planes_and_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(GREY16).save(path, compression="tiff_lzw")
    assert_same(read_image(path), GREY16)
    planes = np.ascontiguousarray(np.moveaxis(RGB16, -1, 0))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    assert_same(read_image(path), RGB16)
    rgba = np.dstack([RGB16, GREY16])
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"])
    assert_same(read_image(path), RGB16)


def test_tiff_whose_zero_is_white_is_inverted(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, GREY16, photometric="miniswhite")
    assert_same(read_image(path), 65535 - GREY16)
    Image.fromarray(GREY16).save(path, compression="tiff_lzw", tiffinfo={262: 0})
    assert_same(read_image(path), 65535 - GREY16)
    tifffile.imwrite(path, GREY8, photometric="miniswhite")
    assert_same(read_image(path), 255 - GREY8)
    tifffile.imwrite(path, GREY8.astype(np.float32), photometric="miniswhite")
    with pytest.raises(ImageError, match="zero means white"):
        read_image(path)


def test_signed_wide_and_floating_point_tiff_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    for dtype in (np.int8, np.int16, np.float16, np.float32, np.float64):
        pixels = (GREY8.astype(np.float64) - 128).astype(dtype)
        tifffile.imwrite(path, pixels, photometric="minisblack")
        assert_same(read_image(path), pixels.astype(np.float32))
    for dtype in (np.int32, np.uint32):
        pixels = GREY16.astype(dtype)
        tifffile.imwrite(path, pixels, photometric="minisblack")
        assert_same(read_image(path), pixels.astype(np.float32))
        pixels[0, 0] = 2**24 + 1
        tifffile.imwrite(path, pixels, photometric="minisblack")
        with pytest.raises(ImageError, match="cannot hold exactly"):
            read_image(path)
    for value in (np.nan, 1e300):
        tifffile.imwrite(path, np.full((4, 4), value), photometric="minisblack")
        with pytest.raises(ImageError, match="not finite"):
            read_image(path)


def test_alpha_palette_and_single_bits(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    transparent = np.zeros((7, 5), np.uint8)
    Image.fromarray(np.dstack([RGB8, transparent])).save(path)
    assert_same(read_image(path), RGB8)
    Image.fromarray(np.dstack([GREY8, transparent])).save(path)
    assert_same(read_image(path), GREY8)
    assert read_info(path).channels == 1

    palette = Image.fromarray(GREY8 % 4, mode="P")
    colours = np.array([[9, 8, 7], [1, 2, 3], [200, 100, 50], [0, 255, 0]], np.uint8)
    palette.putpalette(colours.tobytes())
    for transparency in (None, 1, bytes([0, 255, 128, 3])):
        extra = {} if transparency is None else {"transparency": transparency}
        palette.save(path, **extra)
        assert_same(read_image(path), colours[GREY8 % 4])

    bits = GREY8 > 127
    Image.fromarray(bits).save(path)
    assert_same(read_image(path), bits.astype(np.uint8) * 255)
    assert read_info(path).bits == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["8.png", "8.jpg", "8.tif", "16.png", "16.tif"])
def test_orientation_is_applied(tmp_path: Path, png16: Png16, orientation: int, kind: str) -> None:
    # four quadrants of 8x8 pixels, told apart by brightness even after JPEG
    top_left, top_right, bottom_left, bottom_right = 10, 90, 170, 250
    image = np.kron([[top_left, top_right], [bottom_left, bottom_right]], np.ones((8, 16)))
    # what is stored so that a viewer sees `image`: the inverse of TIFF 6.0, tag 274
    stored = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.T,
        6: np.rot90(image, 1),
        7: image[::-1, ::-1].T,
        8: np.rot90(image, -1),
    }[orientation]
    path = tmp_path / kind
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "16.png":
        path.write_bytes(png16(stored.astype(np.uint16), exif=exif.tobytes()[6:]))
    elif kind == "16.tif":
        tag = (0x0112, "H", 1, orientation, True)
        tifffile.imwrite(path, stored.astype(np.uint16), extratags=[tag])
    else:
        Image.fromarray(stored.astype(np.uint8)).save(path, exif=exif)
    pixels = read_image(path)
    assert pixels.shape == (16, 32)
    np.testing.assert_allclose(pixels[4::8, 8::16], image[4::8, 8::16], atol=3)
    assert (read_info(path).height, read_info(path).width) == (16, 32)


def test_unusable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    def reason(path: Path, **options: int) -> str:
        with pytest.raises(ImageError) as caught:
            read_image(path, **options)
        assert caught.value.path == path
        assert str(caught.value) == f"{path}: {caught.value.reason}"
        return caught.value.reason

    path = tmp_path / "image.png"
    assert reason(path) == "no such file"
    assert reason(tmp_path) == "a folder, not an image"
    path.write_bytes(b"")
    assert reason(path) == "the file is empty"
    path.write_text("<html>not found</html>")
    assert reason(path) == "not a PNG, JPEG, TIFF, BMP, DICOM or NIfTI image"
    Image.fromarray(RGB8).save(path)
    assert reason(path, max_pixels=34) == "more than 34 pixels (5x7)"
    assert read_image(path, max_pixels=35).shape == (7, 5, 3)
    with pytest.raises(ImageError, match="more than 34 pixels"):
        read_info(path, max_pixels=34)
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png") == "not a regular file"
    Image.fromarray(RGB8).save(path, save_all=True, append_images=[Image.fromarray(255 - RGB8)])
    assert reason(path) == "an animation of 2 frames"


def test_unreadable_permissions(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RGB8).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(ImageError, match="no permission"):
        read_image(path)


def test_decompression_bombs_are_refused_by_their_header(tmp_path: Path, png16: Png16) -> None:
    path = tmp_path / "image.png"
    bomb = bytearray(png16(GREY16))
    bomb[16:24] = struct.pack(">II", 30_000, 30_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    path.write_bytes(bomb)
    with pytest.raises(ImageError, match=r"more than 100,000,000 pixels \(30000x30000\)"):
        read_image(path)


def test_several_pages_or_channels_in_a_tiff_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.stack([GREY16] * 3), photometric="minisblack")
    with pytest.raises(ImageError, match="3 pages"):
        read_image(path)
    tifffile.imwrite(path, np.stack([GREY16] * 4), photometric="minisblack", truncate=True)
    with pytest.raises(ImageError, match="4 pages"):
        read_image(path)
    tifffile.imwrite(path, np.dstack([GREY16] * 5), planarconfig="contig")
    with pytest.raises(ImageError, match="5 channels"):
        read_image(path)
    with tifffile.TiffWriter(path) as tiff:  # a thumbnail is no page
        tiff.write(GREY16)
        tiff.write(GREY16[::2, ::2], subfiletype=1)
    assert_same(read_image(path), GREY16)


def write_samples(folder: Path, png16: Png16) -> list[Path]:
    pixels = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels).save(folder / "b.jpg")
    Image.fromarray(pixels).save(folder / "c.bmp")
    Image.fromarray(pixels).save(folder / "d.tif", compression="tiff_adobe_deflate")
    (folder / "e.png").write_bytes(png16(pixels.astype(np.uint16) * 257))
    tifffile.imwrite(folder / "f.tif", pixels.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(folder / "g.tif", pixels[..., 0].astype(np.float32), compression="zlib")
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on odd tags
def test_every_truncation_that_loses_pixels_is_noticed(tmp_path: Path, png16: Png16) -> None:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    for path in write_samples(tmp_path, png16):
        content, pixels = path.read_bytes(), read_image(path)
        for length in range(1, len(content), 97):
            path.write_bytes(content[:length])
            try:
                survived = read_image(path)
            except ImageError as error:
                assert error.reason.startswith(("truncated", "broken", "not a")), error
            else:
                np.testing.assert_array_equal(survived, pixels)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on odd tags
def test_broken_bytes_raise_nothing_but_image_errors(tmp_path: Path, png16: Png16) -> None:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    rng = np.random.default_rng(1)
    failures = 0
    for path in write_samples(tmp_path, png16):
        content = path.read_bytes()
        for reach in (64, 512, len(content)) * 15:
            broken = bytearray(content)
            for place in rng.integers(0, min(reach, len(content)), 4):
                broken[place] = rng.integers(256)
            path.write_bytes(broken)
            for read in (read_image, read_info):
                try:
                    read(path, max_pixels=1_000_000)
                except ImageError:
                    failures += 1
    assert failures > 100


def test_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a/b.png", "broken")))
    assert (error.path, error.reason) == (Path("a/b.png"), "broken")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "kind", "options"),
    [
        ("webp", "WEBP", {"lossless": True}),
        ("jp2", "JPEG2000", {}),
        ("j2k", "JPEG2000", {}),
        ("pnm", "PPM", {}),
        ("jfif", "PNG", {}),
    ],
)
def test_other_lossless_pictures_keep_their_values(
    tmp_path: Path, suffix: str, kind: str, options: dict[str, bool], channels: int
) -> None:
    shape = (9, 7, 3) if channels == 3 else (9, 7)
    drawn = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(drawn).save(path, kind, **options)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    if suffix == "webp" and channels == 1:  # which knows no grey
        pixels = pixels[..., 0]
    np.testing.assert_array_equal(pixels, drawn)
    assert (read_info(path).width, read_info(path).bits) == (7, 8)


def test_a_gif_is_read_unless_it_moves(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 6), grey, np.uint8)) for grey in (10, 200)]
    frames[1].save(tmp_path / "one.gif")
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "one.gif") == 200).all()
    with pytest.raises(ImageError, match="animation of 2 frames"):
        read_image(tmp_path / "two.gif")


def test_sixteen_bits_are_kept_or_refused_and_never_stretched(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 65536, (5, 8)).astype(np.uint16)
    Image.fromarray(drawn).save(tmp_path / "x.pgm", "PPM")
    np.testing.assert_array_equal(read_image(tmp_path / "x.pgm"), drawn)
    assert read_info(tmp_path / "x.pgm").bits == 16
    (tmp_path / "y.pgm").write_bytes(b"P5\n# a word\n2 2\n4095\n" + bytes(8))
    Image.fromarray(drawn).save(tmp_path / "z.jp2", "JPEG2000")
    for name, reason in {"y.pgm": "4095", "z.jp2": "8 unsigned bits"}.items():
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.nrrd", b"NRRD0004\n", "NRRD"),
        ("without", b"NRRD0004\n", "NRRD"),
        ("a.mha", b"ObjectType = Image\n", "MetaImage"),
        ("a.npy", b"\x93NUMPY\x01\0", "NumPy"),
        ("a.img", bytes(400), "two-file NIfTI"),
        ("a.heic", b"\0\0\0\x18ftypheic", "HEIF"),
        ("a.mp4", b"\0\0\0\x18ftypisom", "video"),
    ],
)
def test_formats_that_are_not_read_are_named(
    tmp_path: Path, name: str, content: bytes, format: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert find_images(tmp_path) == [tmp_path / name]
    with pytest.raises(ImageError, match=f"format .*{format} is not read"):
        read_image(tmp_path / name)
