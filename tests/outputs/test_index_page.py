"""The page that a run of scoring leaves."""

import errno
import json
import os
import re

import pytest
from scored_folder import HOSTILE, Bright, write_images

from scrd.data.series import list_sources
from scrd.outputs.pictures import Outputs
from scrd.outputs.result_folder import LIST, ResultFolder
from scrd.outputs.score_folder import score_all
from scrd.report import index_page
from scrd.system.files import PlaceError
from synthetic_volumes import head, write_dicom, write_nifti


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "in")


def levels(folder):
    text = (folder / "index.html").read_text()
    found = re.search(r'id="cases-data">(.*?)</script>', text, re.S)[1]
    return {level["noun"]: level for level in json.loads(found)}, text


def test_every_image_is_in_it_with_what_was_said_of_it(images, tmp_path):
    summary = score_all(Bright(), list_sources([images]), tmp_path, Outputs())
    found, text = levels(tmp_path)
    (level,) = found.values()
    rows = {level["below"] + row[0]: row for row in level["rows"]}
    assert len(rows) == level["total"] == summary.images == 61
    assert set(rows) == {str(path) for path in images.iterdir()}
    assert sum(row[3] for row in rows.values()) == summary.flagged > 0
    broken = rows[str(images / "broken.png")]
    assert broken[1] is None and broken[6] is None
    assert level["texts"][broken[5]] == summary.failures[0].reason
    pictures = [row[6] for row in rows.values() if row[6]]
    assert len(set(pictures)) == 60
    assert (tmp_path / "overlays" / "003.jpg").is_file() and "overlays/003.jpg" in pictures
    for words in ("ab12" * 16, "For research use only", "at most 0.1", "such as patients"):
        assert words in text
    tiles = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert tiles[:3] == [
        ("Images", "61"),
        ("Flagged", str(summary.flagged)),
        ("Without a score", "1"),
    ]
    assert HOSTILE not in text
    assert not re.findall(r'(?:src|href)="(?!#cases|\w+\.csv")', text)  # it loads nothing


def test_it_belongs_to_its_run(images, tmp_path):
    listing = list_sources([images / "003.png"])
    score_all(Bright(), listing, tmp_path, Outputs(overlays=False))
    assert "index.html" in (tmp_path / LIST).read_text().splitlines()
    (level,) = levels(tmp_path)[0].values()
    assert level["rows"][0][6] is None  # no heat map was written
    ResultFolder(tmp_path).start()
    assert os.listdir(tmp_path) == [LIST]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("somebody's")
    with pytest.raises(PlaceError, match=r"index\.html"):
        score_all(Bright(), listing, tmp_path / "other", Outputs())


def test_a_disk_that_is_full_then_costs_only_the_page(images, tmp_path, monkeypatch):
    def full(*_):
        yield "<section>"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(index_page, "case_list", full)
    summary = score_all(Bright(), list_sources([images]), tmp_path, Outputs(overlays=False))
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 62
    assert sorted(os.listdir(tmp_path)) == [LIST, "covariates.csv", "errors.csv", "scores.csv"]
    assert summary.disk_error is not None
    assert "index.html: " in summary.unwritten[0] and "No space left" in summary.unwritten[0]


def test_a_heat_map_that_could_not_be_written_is_not_linked(images, tmp_path, monkeypatch):
    from scrd.outputs import pictures

    def fails(detector, scored, path, title):
        if path.name == "003.jpg":
            raise ZeroDivisionError
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    monkeypatch.setattr(pictures, "write_overlay", fails)
    score_all(Bright(), list_sources([images]), tmp_path, Outputs())
    (level,) = levels(tmp_path)[0].values()
    assert {row[0]: row[6] for row in level["rows"]}["003.png"] is None
    assert sum(row[6] is not None for row in level["rows"]) == 59


def test_studies_and_series_come_first_and_show_their_most_unusual_image(tmp_path):
    for i in range(2):
        write_dicom(tmp_path / "in" / f"s{i}", head(i), i)
    (tmp_path / "in" / "junk.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_nifti(tmp_path / "in" / "head.nii.gz", head(7))
    score_all(Bright(), list_sources([tmp_path / "in"]), tmp_path / "out", Outputs())
    found, text = levels(tmp_path / "out")
    junk = sum("junk" in row[0] for row in found["image"]["rows"])
    assert junk == 1 and set(found) == {"study", "series", "image"}
    assert len(found["study"]["rows"]) == 3
    for level in ("study", "series"):
        for row in found[level]["rows"]:
            name = found[level]["below"] + row[0]
            inside = [
                one
                for one in found["image"]["rows"]
                if name in [found["image"]["texts"][i] for i in one[8]]
            ]
            assert len(inside) == 8
            assert row[6] == max(inside, key=lambda one: one[1])[6]
            assert "8 images" in found[level]["texts"][row[7]]
    assert "Studies" in text and "studies.csv" in text


def test_an_empty_run_has_a_page_too(tmp_path):
    (tmp_path / "in").mkdir()
    listing = list_sources([write_images(tmp_path / "in", 1)])
    score_all(Bright(), type(listing)((), (), 0, ()), tmp_path / "out", Outputs())
    assert levels(tmp_path / "out")[0] == {}
