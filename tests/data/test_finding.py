from pathlib import Path

from PIL import Image

from scrd.data.finding import find_images, in_words, look_through


def test_find_images(tmp_path: Path) -> None:
    for name in (
        "b/2.PNG",
        "b/1.jpeg",
        "a.tif",
        "._a.tif",
        ".hidden/x.png",
        "notes.txt",
        "c.png.md",
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y.bmp").touch()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "loop").symlink_to(tmp_path / "data")
    found = [
        path.relative_to(tmp_path / "data").as_posix() for path in find_images(tmp_path / "data")
    ]
    assert found == ["a.tif", "b/1.jpeg", "b/2.PNG", "link/y.bmp"]


def test_the_first_bytes_tell_where_the_suffix_does_not(tmp_path: Path) -> None:
    for name, kind in {"IM1": "PNG", "IM2.dat": "JPEG", "IM3": "WEBP", "IM4.001": "TIFF"}.items():
        Image.new("L", (4, 4)).save(tmp_path / name, kind)
    # implicit little endian without the preamble: (0008,0016), 4 bytes
    (tmp_path / "IM5").write_bytes(b"\x08\0\x16\0\x04\0\0\x001.2\0")
    (tmp_path / "IM6").write_bytes(b"no image at all")
    (tmp_path / "P5").write_bytes(b"P5 is a motorway")
    found = look_through(tmp_path)
    assert [path.name for path in found.images] == ["IM1", "IM2.dat", "IM3", "IM4.001", "IM5"]
    assert [path.name for path in found.others] == ["IM6", "P5"]


def test_what_is_passed_over_is_named_unless_it_lies_beside_images_everywhere() -> None:
    usual = [Path("README"), Path("a/split.csv"), Path("x.JSON"), Path("Thumbs.db")]
    assert in_words(usual) is None
    assert in_words([]) is None
    text = in_words([*usual, Path("b.zip"), Path("c.zip"), Path("IM7")])
    assert text is not None
    assert text.startswith("7 files were passed over")
    assert "2 .zip" in text
    assert "IM7" in text
