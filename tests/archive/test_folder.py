"""A folder that files are dropped into is watched: complete studies only, each once."""

import logging
import os
import shutil
import time

import pydicom
import pytest
from archives import MODEL, Detector, Study, write_result

from scrd.archive.connection import ArchiveError
from scrd.archive.folder import Folder
from scrd.archive.state import State
from scrd.archive.watch import watch
from scrd.dicom.uids import tag

SETTLE = 0.3


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def state(inbox, tmp_path):
    with State(tmp_path / "state", name=str(inbox), model=MODEL) as state:
        yield state


@pytest.fixture
def folder(inbox, tmp_path):
    return Folder(inbox, tmp_path / "out", settle_seconds=SETTLE)


def once(folder, state, detector):
    time.sleep(SETTLE + 0.05)
    watch(folder, detector, state, once=True)


def test_studies_are_told_apart_by_their_headers(folder, state, inbox, tmp_path):
    studies = [Study(inbox / "deep" / "down"), Study(inbox / "deep" / "down")]
    for study in studies:
        study.add(3)
    studies[0].add_report()
    write_result(inbox / "own.dcm", studies[0].uid)
    detector = Detector(results=2)
    once(folder, state, detector)
    assert sorted(detector.seen) == sorted((s.uid, 3) for s in studies)
    found = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "out").rglob("*.dcm"))
    assert found == sorted(f"out/{tag(s.uid)}/{i}.dcm" for s in studies for i in range(2))
    assert sum(len(s.files) for s in studies) + 2 == len(list(inbox.rglob("*.dcm")))


def test_a_study_must_have_been_left_alone_for_a_while(state, inbox, tmp_path):
    folder = Folder(inbox, tmp_path / "out", settle_seconds=1.2)
    study = Study(inbox)
    detector = Detector()
    study.add(2)
    old = time.time() - 3600
    for file in study.files:  # as copied with its times kept
        os.utime(file, (old, old))
    watch(folder, detector, state, once=True)
    assert detector.seen == []
    time.sleep(0.7)
    study.add()
    time.sleep(0.6)
    watch(folder, detector, state, once=True)
    assert detector.seen == []
    time.sleep(0.7)
    watch(folder, detector, state, once=True)
    assert detector.seen == [(study.uid, 3)]


def test_nothing_is_done_twice_over_a_restart(folder, state, inbox, tmp_path):
    study = Study(inbox)
    study.add(2)
    detector = Detector()
    once(folder, state, detector)
    once(folder, state, detector)
    again = Folder(inbox, tmp_path / "out", settle_seconds=SETTLE)
    once(again, state, detector)
    assert detector.seen == [(study.uid, 2)]
    study.add()
    once(again, state, detector)
    assert detector.seen[1:] == [(study.uid, 3)]
    (result,) = (tmp_path / "out" / tag(study.uid)).iterdir()
    assert result.stat().st_mtime > study.files[-1].stat().st_mtime


def test_results_may_lie_below_the_folder(state, inbox):
    study = Study(inbox)
    study.add()
    detector = Detector()
    folder = Folder(inbox, inbox / "out", settle_seconds=SETTLE)
    once(folder, state, detector)
    once(folder, state, detector)
    assert detector.seen == [(study.uid, 1)]


def test_results_are_there_whole_or_not_at_all(folder, state, inbox, tmp_path):
    study = Study(inbox)
    study.add()
    place = tmp_path / "out" / tag(study.uid)
    first = write_result(tmp_path / "first.dcm", study.uid)
    folder.store(study.uid, [first])
    with pytest.raises(FileNotFoundError):
        folder.store(study.uid, [first, tmp_path / "missing.dcm"])
    assert [p.name for p in place.iterdir()] == ["first.dcm"]
    second = write_result(tmp_path / "second.dcm", study.uid)
    folder.store(study.uid, [second])
    assert [p.name for p in place.iterdir()] == ["second.dcm"]
    assert [p.name for p in place.parent.iterdir()] == [place.name]


def test_other_files_are_mentioned_once_and_without_their_names(folder, state, inbox, caplog):
    for name in ("Doe_Jane.txt", "Doe_John.png"):
        (inbox / name).write_text("no image")
    (inbox / ".partial").write_text("on its way")
    half = Study(inbox).add()[0]
    half.write_bytes(half.read_bytes()[:140])
    for _ in range(3):
        once(folder, state, Detector())
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert messages == [f"{inbox}: left alone 3 files that show no DICOM study"]


def test_a_file_still_being_written_is_read_when_it_is_whole(state, inbox, tmp_path, caplog):
    folder = Folder(inbox, tmp_path / "out", settle_seconds=1)
    study = Study(inbox)
    (file,) = study.add()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    watch(folder, detector := Detector(), state, once=True)
    file.write_bytes(whole)
    time.sleep(1.05)
    watch(folder, detector, state, once=True)
    assert detector.seen == [(study.uid, 1)]
    assert "left alone" not in caplog.text


def test_a_study_that_is_taken_away_is_forgotten(folder, state, inbox, tmp_path):
    study = Study(inbox)
    study.add()
    time.sleep(SETTLE)
    folder.poll(state)
    shutil.move(study.files[0], tmp_path / "kept")
    job = state.claim()
    watch(Gone(folder), Detector(), state, once=True)
    assert (job.uid, state.counts) == (study.uid, {})
    shutil.move(tmp_path / "kept", study.files[0])
    detector = Detector()
    once(folder, state, detector)
    assert detector.seen == [(study.uid, 1)]


class Gone:
    """The folder as it was looked at before the study was taken away."""

    def __init__(self, folder):
        self.name, self.fetch = folder.name, folder.fetch

    def poll(self, state):
        return False


@pytest.mark.parametrize("restarted", [False, True])
def test_a_corrected_study_is_scored_again(folder, state, inbox, tmp_path, restarted):
    study = Study(inbox)
    study.add(3)
    detector = Detector()
    once(folder, state, detector)

    def again():
        other = Folder(inbox, tmp_path / "out", settle_seconds=SETTLE) if restarted else folder
        once(other, state, detector)
        once(other, state, detector)
        return detector.seen[1:]

    corrected = pydicom.dcmread(study.files[0])
    corrected.PixelData = bytes(reversed(corrected.PixelData))
    corrected.save_as(study.files[0])
    assert again() == [(study.uid, 3)]
    study.files[0].unlink()
    assert again() == [(study.uid, 3), (study.uid, 2)]
    assert again() == [(study.uid, 3), (study.uid, 2)]


def test_no_results_leave_no_folder(folder, inbox, tmp_path):
    study = Study(inbox)
    folder.store(study.uid, [write_result(tmp_path / "first.dcm", study.uid)])
    folder.store(study.uid, [])
    folder.store(study.uid, [])
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_away_is_waited_for(folder, state, inbox, tmp_path):
    study = Study(inbox)
    study.add()
    os.rename(inbox, tmp_path / "away")
    with pytest.raises(ArchiveError, match="looking through the folder: No such file") as e:
        once(folder, state, Detector())
    assert e.value.away
    os.rename(tmp_path / "away", inbox)
    once(folder, state, detector := Detector())
    assert detector.seen == [(study.uid, 1)]


def test_content_counts_and_not_what_the_file_system_says_of_it(folder, state, inbox):
    study = Study(inbox)
    study.add(2)
    once(folder, state, detector := Detector())
    os.utime(study.files[0])
    study.files[1].rename(inbox / "other-name")
    once(folder, state, detector)
    assert detector.seen == [(study.uid, 2)]
    before = study.files[0].stat()
    corrected = pydicom.dcmread(study.files[0])
    corrected.PixelData = bytes(reversed(corrected.PixelData))
    corrected.save_as(study.files[0])
    os.utime(study.files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert study.files[0].stat().st_size == before.st_size
    once(folder, state, detector)
    assert detector.seen == [(study.uid, 2)] * 2
