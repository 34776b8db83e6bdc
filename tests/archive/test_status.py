"""Whether a watch lives and gets on, and what it says of itself."""

import sqlite3
import threading
import time

import pytest
from archives import MODEL
from test_watch import Shelf, nothing

from scrd import __version__
from scrd.archive.connection import ArchiveError
from scrd.archive.pulse import Pulse
from scrd.archive.state import Arrival, State
from scrd.archive.status import find_states, read_status
from scrd.archive.watch import Results, watch
from scrd.errors import ScrdError
from scrd.outputs.history import Found

NOW = 1_000_000.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def state(path):
    with State(path, name="shelf", model=MODEL) as state:
        yield state


def set_watcher(state, **told):
    ran = {"started": NOW - 5000, "beat": NOW - 5, "poll_seconds": 5.0, "once": 0, "ended": None}
    for name, value in {**ran, "contacted": NOW - 5, **told}.items():
        state._db.execute(f"UPDATE watcher SET {name} = ?", (value,))


@pytest.mark.parametrize(
    ("told", "health", "words"),
    [
        ({}, "well", "it lives"),
        ({"beat": NOW - 59}, "well", "it lives"),
        ({"beat": NOW - 61}, "dead", "no sign of life for 61 s"),
        ({"beat": NOW + 3600}, "dead", "no sign of life"),  # the clock was set back
        ({"contacted": NOW - 599}, "well", "it lives"),
        ({"contacted": NOW - 601}, "stuck", "the archive has not answered for 601 s"),
        ({"contacted": None}, "stuck", "the archive has not answered for 5000 s"),
        ({"contacted": None, "started": NOW - 60}, "well", "it lives"),
        ({"contacted": NOW - 601, "poll_seconds": 3600.0}, "well", "it lives"),
        ({"contacted": NOW - 1700, "begun": NOW - 1700}, "well", "a study is in hand"),
        ({"study": "ab", "begun": NOW - 1801}, "stuck", "study ab is in hand for 1801 s"),
        ({"ended": NOW - 5, "why": ""}, "dead", "it was stopped"),
        ({"ended": NOW - 5, "why": "No space left"}, "dead", "it ended: No space left"),
        ({"ended": NOW - 5, "why": "", "once": 1}, "well", "it ran once"),
        ({"started": None}, "dead", "no scrd watch of this version has run"),
    ],
)
def test_health(state, path, told, health, words):
    set_watcher(state, **told)
    found = read_status(path, 0.0, NOW)
    assert (found.health, words in found.told) == (health, True), found.told


def test_what_a_watch_did_and_what_waits(state, path):
    def process(folder, uid):
        if uid == "1.3":
            raise ValueError
        if uid in ("1.4", "1.5"):
            raise ScrdError(f"none of {uid[-1]} images could be scored: the model knows no feet")
        return Results(flagged=uid == "1.1", found=Found(2, 0, 0.5, 0.25))

    begun = time.time()
    shelf = Shelf(["1.1", "1.2", "1.3", "1.4", "1.5"])
    watch(shelf, process, state, once=True, attempts=2, retry_seconds=60)
    found = read_status(path, begun)
    assert (found.processed, found.done, found.flagged) == (4, 2, 1)
    assert found.refused == {"the model knows no feet": 2}
    [(at, reason)] = found.retried
    assert 50 < at - time.time() <= 60 and "ValueError in test_status.py" in reason
    assert (found.waiting, found.failed) == (1, {})
    assert begun <= found.oldest <= found.contacted <= found.ended <= time.time()
    assert (found.model, found.version, found.trouble) == (MODEL, __version__, "")
    assert 0 <= found.median_seconds <= found.p95_seconds < 60
    assert found.free_bytes > 0 and found.last >= begun
    assert read_status(path, time.time() + 1).processed == 0
    state.retry("key 1.3", seconds=0, reason="again")
    watch(shelf, process, state, once=True, attempts=2)
    found = read_status(path, begun)
    assert (found.waiting, list(found.failed.values())) == (0, [1])
    assert found.to_dict()["state"] == str(path)


def test_the_95th_percentile_is_that_of_a_plain_count(state, path):
    for number in range(200):
        state.record(queue=[Arrival(f"{number}", f"{number}", "f")])
        state.finish(f"{number}", "done", seconds=float(number + 1))
    found = read_status(path, 0.0)
    assert (found.median_seconds, found.p95_seconds) == (100.5, 190.0)


def test_an_archive_that_is_away_is_told_while_it_is(state, path):
    """Told at once, and taken back at once."""
    seen = []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            seen.append(read_status(path, 0.0).trouble)
            if shelf.stored:
                self.set()
            return True

    shelf = Shelf(["1.1"], away=2)
    watch(shelf, nothing, state, stop=Stop())
    assert seen == ["shelf: asking: no connection"] * 2 + [""]
    assert read_status(path, 0.0).health == "dead"  # it was stopped


def test_why_a_watch_ended_is_kept(state, path):
    with pytest.raises(ArchiveError):
        watch(Shelf(away=1), nothing, state, once=True)
    assert read_status(path, 0.0).told == "it ended: shelf: asking: no connection"
    with pytest.raises(KeyboardInterrupt), Pulse(path, model=MODEL):
        raise KeyboardInterrupt
    assert read_status(path, 0.0).told == "it ended: KeyboardInterrupt"
    with pytest.raises(OSError), Pulse(path, model=MODEL):
        raise OSError(28, "No space left on device", "Doe^Jane.dcm")
    assert read_status(path, 0.0).told == "it ended: No space left on device"


def test_a_study_in_hand_is_named_and_the_thread_beats(state, path, monkeypatch):
    monkeypatch.setattr("scrd.archive.pulse.BEAT_SECONDS", 0.02)
    with Pulse(path, model=MODEL) as pulse:
        pulse.begin("9f86d081884c")
        first = read_status(path, 0.0).beat
        until = time.monotonic() + 20
        while (found := read_status(path, 0.0)).in_hand is None or found.beat == first:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert (found.in_hand, found.told) == ("9f86d081884c", "it lives, and a study is in hand")


def test_a_beat_that_cannot_be_written_costs_nothing(state, path):
    with Pulse(path, model=MODEL) as pulse:
        pulse._db.execute("PRAGMA busy_timeout = 0")
        pulse.begin("ab")
        with state._transaction():
            pulse.beat()
        assert read_status(path, 0.0).in_hand is None
        pulse.beat()
        assert read_status(path, 0.0).in_hand == "ab"


def test_a_damaged_file_is_named(state, path):
    state._db.execute("DELETE FROM watcher")
    with pytest.raises(ScrdError, match=f"{path}: a state file of scrd watch, but damaged"):
        read_status(path, 0.0)
    state.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(ScrdError, match=f"{path}: cannot be read: "):
        read_status(path, 0.0)


def test_state_files_are_found_among_others(tmp_path):
    for name in ("b", "a"):
        State(tmp_path / name, name=name, model="m").close()
    (tmp_path / "notes").write_text("so")
    sqlite3.connect(tmp_path / "empty").close()
    assert find_states([tmp_path]) == [tmp_path / "a", tmp_path / "b"]
    assert find_states([tmp_path / "notes"]) == [tmp_path / "notes"]  # refused when it is read
    (tmp_path / "folder").mkdir()
    with pytest.raises(ScrdError, match="folder: no state file of scrd watch"):
        find_states([tmp_path / "folder"])
