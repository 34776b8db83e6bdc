"""A real Orthanc is watched, killed, emptied and added to: nothing is lost, nothing comes twice."""

import logging
import threading
import time

import pydicom
import pytest
import requests
from archives import (
    MODEL,
    Detector,
    OrthancServer,
    Study,
    missing,
    result_uid,
    write_result,
)

from scrd.archive.connection import ArchiveError
from scrd.archive.orthanc import Orthanc
from scrd.archive.state import State
from scrd.archive.watch import watch


@pytest.fixture
def state(server, tmp_path):
    with State(tmp_path / "state.sqlite", name=server.url, model=MODEL) as state:
        yield state


def studies(server, tmp_path, count=2, slices=2):
    found = [Study(tmp_path / f"study{i}") for i in range(count)]
    for study in found:
        server.push(*study.add(slices))
    return found


def once(server, state, detector, **options):
    """Wait until Orthanc has seen what there is, then do it."""
    server.wait_until_stable()
    watch(Orthanc(server.url), detector, state, once=True, **options)


def test_results_are_stored_beside_the_images_and_never_again(server, state, tmp_path, caplog):
    found = studies(server, tmp_path, 3, slices=40)  # more than a page of changes
    detector = Detector(results=2)
    with caplog.at_level(logging.INFO):
        once(server, state, detector)
    assert sorted(detector.seen) == sorted((s.uid, 40) for s in found)
    for study in found:
        assert server.results(study.uid) == sorted(result_uid(study.uid, i) for i in range(2))
    once(server, state, detector)  # its own results have made the studies stable once more
    assert len(detector.seen) == 3
    assert state.counts == {"done": 3}
    assert state.arriving == ()
    for hidden in (found[0].uid, "secret-17", "Doe"):
        assert hidden not in caplog.text
    assert sum("done, 2 results stored" in r.getMessage() for r in caplog.records) == 3


class Trap(Orthanc):
    """Kills the server at each of some moments, once, and has it restarted a little later."""

    def __init__(self, server, moments, finished, stop):
        super().__init__(server.url)
        self._server = server
        self.moments = list(moments)
        self._finished = finished
        self._stop = stop
        self._restart = None
        self._end = time.monotonic() + 30

    def spring(self, moment):
        if moment in self.moments:
            self.moments.remove(moment)
            if self._restart:
                self._restart.join()
            self._server.kill()
            self._restart = threading.Timer(0.2, self._server.start)
            self._restart.start()

    def poll(self, state):
        assert time.monotonic() < self._end, state.counts
        if self._finished(state):
            self._stop.set()
        return super().poll(state)

    def store(self, key, files, models):
        others = super().store(key, files, models)
        self.spring("after storing")
        return others

    def _ask(self, method, path, tried, **options):
        self.spring(f"before {tried}")
        return super()._ask(method, path, tried, **options)


class Impatient(threading.Event):
    def wait(self, timeout=None):
        return super().wait(min(timeout, 0.5))


def test_the_archive_is_killed_at_any_moment_and_comes_back(server, state, tmp_path):
    found = studies(server, tmp_path)
    server.wait_until_stable()
    stop = Impatient()
    moments = [
        "before reading changes",
        "before looking up studies",
        "before downloading an instance",
        "processing",
        "before storing result 2 of 2",
        "after storing",
    ]
    trap = Trap(server, moments, lambda state: state.counts == {"done": 2}, stop)
    detector = Detector(results=2, during=lambda: trap.spring("processing"))
    watch(trap, detector, state, poll_seconds=0.1, stop=stop)
    assert trap.moments == []
    # once more for each time that the results could not be stored
    assert len(detector.seen) == len(found) + 2
    once(server, state, detector)
    assert len(detector.seen) == len(found) + 2
    assert state.counts == {"done": 2}
    for study in found:
        assert server.results(study.uid) == sorted(result_uid(study.uid, i) for i in range(2))


def test_an_archive_killed_before_the_study_was_stable(server, state, tmp_path):
    """Orthanc forgets such a study: no StableStudy event ever comes."""
    (study,) = studies(server, tmp_path, 1)
    server.kill()
    server.start()
    detector = Detector()
    once(server, state, detector)
    assert "StableStudy" not in {c["ChangeType"] for c in server.get("/changes")["Changes"]}
    assert detector.seen == []  # seen for the first time: more of it may be on its way
    once(server, state, detector)
    assert detector.seen == [(study.uid, 2)]
    assert server.results(study.uid) == [result_uid(study.uid)]


def test_images_that_come_later_replace_the_result(server, state, tmp_path):
    (study,) = studies(server, tmp_path, 1)
    foreign = write_result(tmp_path / "foreign.dcm", study.uid, model="cd" * 32, maker="Acme")
    others = write_result(tmp_path / "others.dcm", study.uid, model="ef" * 32)
    server.push(foreign, others, study.add_report())
    detector = Detector()
    once(server, state, detector)
    # a capture of another maker is an image like any other; a report and a result are not
    assert detector.seen == [(study.uid, 3)]
    server.push(*study.add(2))
    once(server, state, detector)
    assert detector.seen == [(study.uid, 3), (study.uid, 5)]
    assert server.results(study.uid) == sorted(
        [result_uid(study.uid), result_uid(study.uid, model="ef" * 32)]
    )
    (key,) = server.get("/studies")
    stored = {
        i["MainDicomTags"]["SOPInstanceUID"]: i["ID"]
        for i in server.get(f"/studies/{key}/instances")
    }
    assert len(stored) == 8  # 4 slices, a capture, a report, results of two models
    content = requests.get(
        f"{server.url}/instances/{stored[result_uid(study.uid)]}/file", timeout=10
    ).content
    assert pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)).pixel_array[0, 0] == 5


def test_an_archive_that_starts_anew_is_read_from_its_start(server, state, tmp_path):
    studies(server, tmp_path)
    detector = Detector()
    once(server, state, detector)
    server.restart_empty()
    (first,) = studies(server, tmp_path / "new", 1, slices=1)
    server.wait_until_stable()
    (second,) = studies(server, tmp_path / "newer", 1, slices=30)  # more changes than before
    assert server.get("/changes?limit=1000")["Last"] > state.position[0]
    once(server, state, detector)
    assert sorted(detector.seen[2:]) == sorted([(first.uid, 1), (second.uid, 30)])
    watch(Orthanc(server.url), detector, state, once=True)
    assert len(detector.seen) == 4


def test_a_study_deleted_before_its_turn_is_forgotten(server, state, tmp_path):
    gone, left = studies(server, tmp_path)
    server.wait_until_stable()

    class Deleting(Orthanc):
        def poll(self, state):
            more = super().poll(state)
            for study in server.get("/studies?expand"):
                if study["MainDicomTags"]["StudyInstanceUID"] == gone.uid:
                    requests.delete(f"{server.url}/studies/{study['ID']}", timeout=10)
            return more

    detector = Detector()
    watch(Deleting(server.url), detector, state, once=True)
    assert detector.seen == [(left.uid, 2)]
    assert state.counts == {"done": 1}


def test_a_result_that_is_not_taken_is_a_failure_of_the_study(tmp_path, caplog):
    if missing():
        pytest.skip(missing())
    server = OrthancServer(tmp_path / "orthanc", refuse="OT")
    server.start()
    try:
        with State(tmp_path / "state", name=server.url, model=MODEL) as state:
            studies(server, tmp_path, 1)
            once(server, state, Detector(), attempts=1)
            assert state.counts == {"failed": 1}
    finally:
        server.kill()
    assert "storing result 1 of 1: the archive's own rules refuse it" in caplog.text


def test_wrong_addresses_and_passwords_end_the_watch(tmp_path, monkeypatch):
    if missing():
        pytest.skip(missing())
    server = OrthancServer(
        tmp_path / "orthanc", AuthenticationEnabled=True, RegisteredUsers={"me": "hush"}
    )
    server.auth = ("me", "hush")
    server.start()
    try:
        with State(tmp_path / "state", name=server.url, model=MODEL) as state:
            with pytest.raises(ArchiveError, match="reading changes: HTTP 401"):
                watch(Orthanc(server.url), Detector(), state)
            (study,) = studies(server, tmp_path, 1)
            server.wait_until_stable()
            monkeypatch.setenv("SCRD_ORTHANC_USER", "me")
            monkeypatch.setenv("SCRD_ORTHANC_PASSWORD", "hush")
            detector = Detector()
            watch(Orthanc(server.url), detector, state, once=True)
            assert detector.seen == [(study.uid, 2)]
            with pytest.raises(ArchiveError, match="HTTP 404"):
                watch(Orthanc(server.url + "/nowhere"), detector, state)
    finally:
        server.kill()


def test_a_corrected_image_is_scored_again(tmp_path):
    if missing():
        pytest.skip(missing())
    server = OrthancServer(tmp_path / "orthanc", OverwriteInstances=True)
    server.start()
    try:
        with State(tmp_path / "state", name=server.url, model=MODEL) as state:
            (study,) = studies(server, tmp_path, 1)
            detector = Detector()
            once(server, state, detector)
            corrected = pydicom.dcmread(study.files[1])
            corrected.PixelData = bytes(reversed(corrected.PixelData))
            corrected.save_as(study.files[1])
            server.push(study.files[1])
            once(server, state, detector)
            once(server, state, detector)
            assert detector.seen == [(study.uid, 2)] * 2
            assert server.results(study.uid) == [result_uid(study.uid)]
    finally:
        server.kill()


def test_another_model_replaces_what_this_watch_stored(server, tmp_path, caplog):
    (study,) = studies(server, tmp_path, 1)
    server.push(write_result(tmp_path / "others.dcm", study.uid, model="ef" * 32))
    for model in (MODEL, "cd" * 32):
        with (
            caplog.at_level(logging.INFO),
            State(tmp_path / "state", name=server.url, model=model) as state,
        ):
            once(server, state, Detector(model=model))
        server.push(*study.add())
    assert server.results(study.uid) == sorted(
        [result_uid(study.uid, model="cd" * 32), result_uid(study.uid, model="ef" * 32)]
    )
    assert "in place of the results of another model" in caplog.text
    assert caplog.text.count("beside 1 results of other models") == 2
