"""Files that are there whole or not at all, places, names."""

import os

import pytest

from scrd.outputs.result_folder import LIST, ResultFolder
from scrd.system.files import PlaceError, atomic, safe_name, try_folder


def test_the_longest_name_is_written_and_a_failure_leaves_nothing(tmp_path):
    path = tmp_path / ("n" * 255)
    with atomic(path) as temporary:
        temporary.write_text("one")
    with pytest.raises(OSError, match="No space"), atomic(path) as temporary:
        temporary.write_text("tw")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["n" * 255]


def test_a_place_is_tried_and_left_as_it_was(tmp_path):
    try_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PlaceError, match="cannot be written to"):
            try_folder(place)
    with pytest.raises(PlaceError, match="taken for input"):
        try_folder(tmp_path / "out", outside=[tmp_path])


def test_names_fit_and_stay_apart():
    assert safe_name("chest[1] ä%") == "chest[1] ä%"
    odd = [safe_name(name) for name in ("a\nb", "a\tb", "a\udce4b", "n" * 300, "n" * 301)]
    assert len(set(odd)) == 5
    assert all(name.isprintable() and len(name.encode()) <= 255 for name in odd)


def test_results_of_an_earlier_run_go_and_others_are_refused(tmp_path):
    run = ResultFolder(tmp_path)
    run.start()
    old = run.claim(tmp_path / "overlays" / "old.jpg")
    old.parent.mkdir()
    for path in (old, tmp_path / "scores.csv", tmp_path / "notes.txt"):
        path.write_text("x")
    ResultFolder(tmp_path).start()
    assert sorted(os.listdir(tmp_path)) == [LIST, "notes.txt"]
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "strange.npy").write_text("x")
    with pytest.raises(PlaceError, match=r"maps/strange\.npy"):
        ResultFolder(tmp_path)
