"""Tables as spreadsheets and scripts write them, and boxes that find their images or are named."""

from pathlib import Path

import pytest

from scrd.data.manifest import Manifest, read_manifest
from scrd.errors import ManifestError

TABLE = "path,label,class,split\na/1.png,0,fine,test\na/2.png,1,ill,test\n"
BOXES = "path,x_min,y_min,x_max,y_max\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for number in (1, 2):
        (tmp_path / "a" / f"{number}.png").touch()
    (tmp_path / "split.csv").write_text(TABLE)
    return tmp_path


def with_boxes(folder: Path, text: str, encoding: str = "utf-8") -> Manifest:
    (folder / "boxes.csv").write_text(text, encoding=encoding)
    return read_manifest(folder)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_delimiters_and_encodings(folder: Path, delimiter: str, encoding: str) -> None:
    plain = read_manifest(folder)
    text = TABLE.replace(",", delimiter).replace("path", "Path").replace("label", " LABEL ")
    (folder / "split.csv").write_text(text.replace("1.png;0", "1.png;0,0"), encoding=encoding)
    assert read_manifest(folder).records == plain.records


def test_decimal_commas(folder: Path) -> None:
    manifest = with_boxes(folder, BOXES.replace(",", ";") + "a/2.png;0,5;1;3;4,25\n", "utf-16")
    assert manifest.records[1].boxes == ((0.5, 1.0, 3.0, 4.25),)


def test_capitals_backslashes_and_whole_numbers_with_a_point(folder: Path) -> None:
    text = TABLE.replace("a/", "a\\").replace(",1,", ",1.0,").replace("test\n", "Testing\n")
    (folder / "split.csv").rename(folder / "Split.CSV")
    (folder / "Split.CSV").write_text(text)
    manifest = read_manifest(folder)
    assert [r.path for r in manifest.test] == [folder / "a" / "1.png", folder / "a" / "2.png"]
    assert [r.label for r in manifest.test] == [0, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TABLE.replace("path", "file"), "no column path; the columns are file, label, class"),
        (TABLE.replace(",1,", ",True,"), "line 3: label is 'True'"),
        (TABLE.replace(",1,", ",nan,"), "line 3: label is 'nan'"),
        (TABLE + "./a/2.png,1,ill,test\n", "line 4: ./a/2.png is already on line 3"),
        (TABLE + "a\\2.png,1,ill,test\n", "is already on line 3"),
        (TABLE.replace("class", "Label"), "line 1"),
    ],
)
def test_tables_that_are_refused(folder: Path, text: str, reason: str) -> None:
    (folder / "split.csv").write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    assert reason in caught.value.reason


def test_a_table_of_another_encoding_is_refused_with_advice(folder: Path) -> None:
    (folder / "split.csv").write_bytes(TABLE.replace("ill", "wüst").encode("latin-1"))
    with pytest.raises(ManifestError, match="save it as UTF-8"):
        read_manifest(folder)


@pytest.mark.parametrize("path", ["./a/2.png", "a\\2.png", "a//2.png", '"a/2.png"', "{}/a/2.png"])
def test_boxes_find_their_image(folder: Path, path: str) -> None:
    manifest = with_boxes(folder, BOXES + f"{path.format(folder)},1,1,3,3\n")
    assert manifest.records[1].boxes == ((1, 1, 3, 3),)
    assert manifest.notes == ()


@pytest.mark.parametrize("path", ["a/2", "A/2.PNG", "a/2.jpg"])
def test_boxes_that_can_mean_one_image_alone_are_taken_and_told(folder: Path, path: str) -> None:
    manifest = with_boxes(folder, BOXES + f"{path},1,1,3,3\n")
    assert manifest.records[1].boxes == ((1, 1, 3, 3),)
    assert path in manifest.notes[0]


@pytest.mark.parametrize("path", ["2.png", "b/a/2.png", "/elsewhere/a/2.png", "a/3.png"])
def test_boxes_of_no_image_are_named(folder: Path, path: str) -> None:
    manifest = with_boxes(folder, BOXES + f"{path},1,1,3,3\n" * 2)
    assert manifest.records[1].boxes == ()
    assert f"2 rows fit no image of the data set: {path}" in manifest.notes[0]


def test_boxes_on_normal_images_and_tables_without_a_row_are_named(folder: Path) -> None:
    assert "1 images labelled normal" in with_boxes(folder, BOXES + "a/1.png,1,1,3,3\n").notes[0]
    assert with_boxes(folder, BOXES).notes == ("boxes.csv: no row",)


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ("3,3,1,1", "the box is empty"),
        ("1,1,1,3", "the box is empty"),
        ("nan,1,3,3", "no finite number"),
        ("-inf,1,3,3", "no finite number"),
        (",1,3,3", "line 2"),
    ],
)
def test_boxes_without_a_meaning_are_refused(folder: Path, corners: str, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        with_boxes(folder, BOXES + f"a/2.png,{corners}\n")


def test_boxes_of_a_folder_tree(tmp_path: Path) -> None:
    for name in ("train/normal/1.png", "test/ill/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    manifest = with_boxes(tmp_path, BOXES + "test/ill/2.png,1,1,3,3\n")
    assert manifest.test[0].boxes == ((1, 1, 3, 3),)
