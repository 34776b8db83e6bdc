"""What a watch knows survives it, and changes only as it should."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scrd.archive.state import Arrival, State, StateError

A, B = Arrival("a", "1.2.3", "f1"), Arrival("b", "1.2.4", "f1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.sqlite"


def opened(path, model="m", name="http://there"):
    return State(path, name=name, model=model)


def test_a_study_keeps_its_place_over_a_restart(path):
    with opened(path) as state:
        state.record(queue=[A, B], arriving=["c"], position=(7, "seven"))
    with opened(path) as state:
        assert (state.position, state.arriving) == ((7, "seven"), ("c",))
        assert [state.claim().key, state.claim().key] == ["a", "a"]  # begun is not finished
        state.finish("a", "done")
        assert state.claim().key == "b"
        assert state.counts == {"done": 1, "queued": 1}


@pytest.mark.parametrize("outcome", ["done", "refused", "failed"])
def test_the_same_images_are_not_queued_again(path, outcome):
    with opened(path) as state:
        state.record(queue=[A])
        state.finish("a", outcome, reason="so")
        state.record(queue=[A])
        assert state.claim() is None
        assert state.counts == {outcome: 1}
        state.record(queue=[Arrival("a", "1.2.3", "f2")])
        assert (state.claim().attempts, state.counts) == (1, {"queued": 1})


def test_another_model_scores_again(path):
    with opened(path) as state:
        state.record(queue=[A])
        state.finish("a", "done")
    with opened(path, model="other") as state:
        assert state.claim() is None
        state.record(queue=[A])
        assert state.claim().key == "a"


def test_what_was_fetched_counts_and_not_what_was_announced(path):
    with opened(path) as state:
        state.record(queue=[A])
        state.finish("a", "done", fingerprint="f2")
        state.record(queue=[Arrival("a", "1.2.3", "f2")])
        assert state.claim() is None


def test_the_longest_waiting_comes_first_and_a_retry_waits(path):
    with opened(path) as state:
        state.record(queue=[A, B])
        state.claim()
        state.retry("a", seconds=60, reason="later")
        assert state.claim().key == "b"
        state.finish("b", "done")
        assert state.claim() is None
        state.retry("a", seconds=0, reason="now")
        assert state.claim().attempts == 2


def test_a_study_put_back_goes_behind_the_others_and_keeps_its_attempts(path):
    with opened(path) as state:
        state.record(queue=[A, B])
        state.claim()
        state.put_back("a")
        assert (state.claim().key, state.claim().key) == ("b", "b")
        state.forget("b")
        assert state.claim().attempts == 1


def test_failed_studies_can_be_taken_up_again(path):
    with opened(path) as state:
        state.record(queue=[A, B])
        state.finish("a", "failed")
        state.finish("b", "refused")
        assert state.retry_failed() == 1
        assert state.claim().key == "a"


def test_a_page_is_recorded_whole_or_not_at_all(path):
    with opened(path) as state:
        state.record(arriving=["a"], position=(1, "one"))
        with pytest.raises(sqlite3.IntegrityError):
            state.record(queue=[A, Arrival("b", None, "f")], settled=["a"], position=(2, "two"))
        assert (state.position, state.arriving) == ((1, "one"), ("a",))
        assert state.claim() is None


def test_one_process_at_a_time(path):
    program = (
        "import sys; from pathlib import Path; from scrd.archive.state import State\n"
        "State(Path(sys.argv[1]), name='http://there', model='m')"
    )
    with opened(path):
        second = subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60
        )
    assert "another scrd watch is using this state file" in second.stderr
    opened(path).close()


def test_the_file_of_another_archive_is_refused(path):
    opened(path).close()
    with pytest.raises(StateError, match="belongs to http://there, not to http://here"):
        opened(path, name="http://here")
    opened(path).close()


def test_other_files_are_refused(path):
    path.write_bytes(b"no database " * 100)
    with pytest.raises(StateError, match="not a state file"):
        opened(path)
    path.unlink()
    with pytest.raises(StateError, match="cannot be written"):
        opened(Path(__file__) / "state")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateError, match="format 99"):
        opened(path)


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_nobody_else_reads_the_uids(path, caplog):
    with caplog.at_level(logging.INFO), opened(path) as state:
        state.record(queue=[A])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [r.getMessage() for r in caplog.records] == ["study c47f5b18b8a4: queued"]


def as_of(path, format_):
    """Make the file what an older version would have written."""
    with sqlite3.connect(path) as db:
        for column in ("since", *(("flagged", "stored") if format_ == 1 else ())):
            db.execute(f"ALTER TABLE studies DROP COLUMN {column}")
        for table in ("history", "images", "watcher"):
            db.execute(f"DROP TABLE {table}")
        db.execute(f"PRAGMA user_version = {format_}")
    db.close()


def test_what_an_older_version_wrote_is_taken_over_and_said(path, caplog):
    with opened(path) as state:
        state.record(queue=[A, B], position=(7, "seven"))
        state.finish("a", "done", stored=True)
    as_of(path, 1)
    with opened(path, model="new") as state:
        assert (state.position, state.counts) == ((7, "seven"), {"done": 1, "queued": 1})
        assert state.of_other_models == 1
        assert (state.claim().key, state.claim().stored) == ("b", ())
    assert "written by an older version" in caplog.text
    caplog.clear()
    opened(path).close()
    assert caplog.text == ""


def test_a_damaged_file_and_another_database_are_left_alone(path):
    with opened(path) as state:
        state.record(queue=[Arrival(f"k{i}", f"1.2.{i}", "f" * 64) for i in range(200)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StateError, match="or damaged; move it away to begin anew"):
        opened(path)
    assert len(path.read_bytes()) == len(whole) // 2
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE accounts (name TEXT)")
    db.close()
    with pytest.raises(StateError, match="not a state file of scrd watch"):
        opened(path)
    with sqlite3.connect(path) as db:
        assert [n for (n,) in db.execute("SELECT name FROM sqlite_master")] == ["accounts"]
    db.close()
    path.unlink()
    opened(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM archive")
    db.close()
    with pytest.raises(StateError, match="or damaged"):
        opened(path)


def test_whose_results_the_archive_holds_is_known(path):
    with opened(path) as state:
        state.record(queue=[A, B])
        state.finish("a", "done", stored=True, flagged=True)
        state.finish("b", "refused", stored=False)
        assert (state.flagged, state.of_other_models) == (1, 0)
    with opened(path, model="other") as state:
        assert state.of_other_models == 1
        state.record(queue=[A])
        assert state.claim().stored == ("m",)
        state.finish("a", "failed")  # nothing was stored, so the old ones are still there
        assert (state.flagged, state.of_other_models) == (0, 1)
        state.finish("a", "done", stored=True)
        assert state.of_other_models == 0
