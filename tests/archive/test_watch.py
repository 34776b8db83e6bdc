"""The loop: what is tried again, what is not, and what a kill leaves behind."""

import errno
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from archives import MODEL, Study, result_uid, until

from scrd.archive.connection import ArchiveError
from scrd.archive.state import Arrival, State
from scrd.archive.status import read_status
from scrd.archive.watch import Results, stopping, watch
from scrd.dicom.uids import tag
from scrd.errors import ScrdError


class Shelf:
    """An archive in memory: study → number of its files; stores what it is given."""

    name = "shelf"

    def __init__(self, studies=("1.1", "1.2"), away=0):
        self.studies = dict.fromkeys(studies, 1)
        self.away = away
        self.stored = []

    def _answer(self):
        if self.away:
            self.away -= 1
            raise ArchiveError(self.name, "asking", "no connection")

    def poll(self, state):
        self._answer()
        state.record(queue=[Arrival(f"key {u}", u, f"{n}") for u, n in self.studies.items()])
        return False

    def fetch(self, key, folder):
        self._answer()
        (folder / "1.dcm").touch()
        return str(self.studies[key.split()[1]])

    def store(self, key, files, models):
        self._answer()
        self.stored.append(key.split()[1])
        return 0


@pytest.fixture
def state(tmp_path):
    with State(tmp_path / "state", name="shelf", model=MODEL) as state:
        yield state


def nothing(folder, uid):
    return Results()


def test_every_study_is_done_once_and_leaves_no_files(state, tmp_path):
    shelf = Shelf()
    folders = []

    def process(folder, uid):
        folders.append((folder, [f.name for f in folder.iterdir()]))
        return Results()

    (tmp_path / "state.work" / "left by a kill").mkdir(parents=True)
    for _ in range(2):
        watch(shelf, process, state, once=True)
    assert shelf.stored == ["1.1", "1.2"]
    assert [names for _, names in folders] == [["1.dcm"], ["1.dcm"]]
    assert not (tmp_path / "state.work").exists()


def test_a_refusal_is_final_until_the_images_change(state, caplog):
    calls = []

    def process(folder, uid):
        calls.append(uid)
        raise ScrdError("the model knows no feet")

    shelf = Shelf(["1.1"])
    for _ in range(2):
        watch(shelf, process, state, once=True)
    assert (calls, state.counts) == (["1.1"], {"refused": 1})
    assert "refused: the model knows no feet" in caplog.text
    shelf.studies["1.1"] = 2
    watch(shelf, nothing, state, once=True)
    assert state.counts == {"done": 1}


class Kept(Shelf):
    """Remembers the files that it holds, and of which models it was told to let go."""

    def __init__(self, *arguments, others=0):
        super().__init__(*arguments)
        self.holds, self.models, self.others = {}, [], others

    def store(self, key, files, models):
        self.holds[key] = list(files)
        self.models.append(set(models))
        return self.others


def scored(folder, uid):
    return Results([folder], words="not flagged, score 0.5, p 0.25, 2 images")


def test_a_study_has_one_line_that_says_what_came_of_it(state, caplog):
    with caplog.at_level(logging.INFO):
        outcomes = watch(Kept(["1.1"], others=3), scored, state, once=True)
    assert outcomes == {"done": 1}
    [line] = [r.getMessage() for r in caplog.records if "done" in r.getMessage()]
    assert line.startswith(f"study {tag('1.1')}: done, 1 results stored; not flagged, score 0.5, ")
    assert "p 0.25, 2 images; 0.0 s" in line
    assert "beside 3 results of other models" in line
    assert "1.1:" not in line.replace(tag("1.1"), "")


def test_a_study_refused_after_a_correction_loses_its_old_results(state, caplog):
    shelf = Kept(["1.1"])
    watch(shelf, scored, state, once=True)
    assert shelf.holds["key 1.1"]

    def process(folder, uid):
        raise ScrdError("the model knows no feet")

    shelf.studies["1.1"] = 2
    assert watch(shelf, process, state, once=True) == {"refused": 1}
    assert shelf.holds["key 1.1"] == []
    assert "knows no feet" in caplog.text and "in place of the results of" in caplog.text
    assert state.claim() is None


def test_a_study_may_be_refused_with_files(state, caplog):
    def process(folder, uid):
        return Results([folder], refusal="no DICOM object could be written: so")

    shelf = Kept(["1.1"])
    assert watch(shelf, process, state, once=True) == {"refused": 1}
    assert len(shelf.holds["key 1.1"]) == 1
    assert state.counts == {"refused": 1}
    assert "refused: no DICOM object could be written: so" in caplog.text


def test_results_of_another_model_are_replaced_and_that_is_said(tmp_path, caplog):
    shelf = Kept(["1.1"])
    for model in ("old", "new"):
        with (
            caplog.at_level(logging.INFO),
            State(tmp_path / "state", name="shelf", model=model) as state,
        ):
            watch(shelf, scored, state, once=True)
    assert shelf.models == [{"old"}, {"old", "new"}]
    assert caplog.text.count("in place of the results of another model") == 1


def test_a_heartbeat_says_how_things_stand(state, caplog):
    stop = threading.Event()

    class Ending(Shelf):
        polls = 0

        def poll(self, state):
            self.polls += 1
            if self.polls == 4:
                stop.set()
            return super().poll(state)

    def process(folder, uid):
        return Results(flagged=uid == "1.1")

    with caplog.at_level(logging.INFO):
        watch(Ending(), process, state, poll_seconds=0.01, stop=stop, heartbeat_seconds=0)
    beats = [r.getMessage() for r in caplog.records if "last answer" in r.getMessage()]
    assert beats[0] == (
        "2 studies done, 1 of them flagged, 0 refused, 0 failed, 0 waiting, last answer 0 s ago"
    )
    caplog.clear()
    stop.clear()
    with caplog.at_level(logging.INFO):
        watch(Ending(), process, state, poll_seconds=0.01, stop=stop, heartbeat_seconds=60)
    assert "last answer" not in caplog.text


def test_other_failures_are_tried_again_then_given_up(state, caplog):
    calls = []
    stop = threading.Event()

    def process(folder, uid):
        calls.append(uid)
        if len(calls) == 4:
            stop.set()
        if uid == "1.1":
            raise ValueError("Doe^Jane is no number")
        return Results()

    watch(Shelf(), process, state, poll_seconds=0.01, stop=stop, attempts=3, retry_seconds=0.1)
    assert sorted(calls) == ["1.1", "1.1", "1.1", "1.2"]
    assert calls[1] == "1.2"  # the others do not wait
    assert state.counts == {"done": 1, "failed": 1}
    messages = [r.getMessage().split(": ", 1)[1] for r in caplog.records]
    assert all("ValueError in test_watch.py, line" in m for m in messages)
    assert "next attempt in 0 s" in messages[0]
    assert messages[-1].startswith("failed 3 times: ")
    assert "Doe" not in caplog.text


def test_a_study_that_kills_the_process_is_given_up(state):
    """As where the system ends a process that takes too much memory."""

    class Killed(BaseException):
        pass

    def process(folder, uid):
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            watch(Shelf(["1.1"]), process, state, once=True, attempts=3)
    watch(Shelf(["1.1"]), process, state, once=True, attempts=3)
    assert state.counts == {"failed": 1}


def test_an_archive_that_is_away_is_asked_again_with_longer_waits(state, caplog, monkeypatch):
    shelf = Shelf(["1.1"], away=9)
    waits = []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            if shelf.stored:
                self.set()
            return True

    watch(shelf, nothing, state, stop=Stop())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 5]
    assert shelf.stored == ["1.1"]
    assert "no connection; next try in 60 s" in caplog.text


@pytest.mark.parametrize("step", ["fetch", "store"])
def test_a_study_waits_for_an_archive_that_is_away(state, step, monkeypatch):
    shelf = Shelf(["1.1"])
    original = getattr(shelf, step)

    def away(*arguments):
        monkeypatch.setattr(shelf, step, original)
        shelf.away = 1
        return original(*arguments)

    monkeypatch.setattr(shelf, step, away)
    with pytest.raises(ArchiveError, match="no connection"):
        watch(shelf, nothing, state, once=True, attempts=1)
    assert state.counts == {"queued": 1}
    watch(shelf, nothing, state, once=True, attempts=1)  # being away was no attempt
    assert (shelf.stored, state.counts) == (["1.1"], {"done": 1})


def test_an_archive_that_refuses_ends_the_watch(state, monkeypatch):
    shelf = Shelf()

    def forbidden(_):
        raise ArchiveError(shelf.name, "asking", "HTTP 401", 401)

    monkeypatch.setattr(shelf, "poll", forbidden)
    with pytest.raises(ArchiveError, match="401"):
        watch(shelf, nothing, state)


def test_a_full_disk_ends_the_watch_and_costs_no_attempt(state):
    def process(folder, uid):
        raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            watch(Shelf(["1.1"]), process, state, once=True, attempts=1)
    assert state.counts == {"queued": 1}


def start(server, tmp_path, moment):
    program = Path(__file__).with_name("watching.py")
    return subprocess.Popen(
        [sys.executable, program, server.url, tmp_path / "state", tmp_path / "log", moment],
        stderr=subprocess.PIPE,
    )


def events(tmp_path):
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def killed_at(server, tmp_path, moment, number=signal.SIGKILL):
    before = events(tmp_path).count(moment)
    process = start(server, tmp_path, moment)
    until(lambda: events(tmp_path).count(moment) > before, 20)
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode


def test_the_watch_is_killed_at_any_moment(server, tmp_path):
    studies = [Study(tmp_path / f"study{i}") for i in range(3)]
    for study in studies:
        server.push(*study.add(2))
    server.wait_until_stable()

    def results():
        return [server.results(s.uid) for s in studies]

    def counts():
        told = read_status(tmp_path / "state", 0.0)  # as the kill left it
        with State(tmp_path / "state", name=server.url, model=MODEL) as state:
            counts = state.counts
        assert (told.done, told.waiting) == (counts.get("done", 0), counts.get("queued", 0))
        return counts

    assert killed_at(server, tmp_path, "recorded") == -signal.SIGKILL
    assert counts() == {"queued": 3}
    assert killed_at(server, tmp_path, "processing") == -signal.SIGKILL
    assert len(list((tmp_path / "state.work").iterdir())) == 1
    assert (counts(), any(results())) == ({"queued": 3}, False)
    # the polite signal lets the study in hand be finished
    assert killed_at(server, tmp_path, "slow", signal.SIGTERM) == 0
    assert counts() == {"done": 1, "queued": 2}
    assert killed_at(server, tmp_path, "stored") == -signal.SIGKILL
    assert counts() == {"done": 1, "queued": 2}
    for _ in range(2):
        assert start(server, tmp_path, "never").wait(20) == 0
    assert counts() == {"done": 3}
    # only the study that was killed between being stored and saying so was scored twice
    assert len([e for e in events(tmp_path) if e.startswith("scored")]) == 4
    assert results() == [sorted(result_uid(s.uid, i) for i in range(2)) for s in studies]
    assert not (tmp_path / "state.work").exists()


def test_a_second_signal_is_not_held_back(caplog):
    # a process that a shell put into the background ignores it
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with caplog.at_level(logging.INFO), stopping() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
                time.sleep(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, given)
    assert "SIGINT: stopping after the study in hand" in caplog.text
