"""What was done is kept, bounded, and read while a watch goes on or after it was killed."""

import hashlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scrd.archive.state import NOTHING, Arrival, State
from scrd.archive.status import read_status
from scrd.data.covariates import Covariates
from scrd.dicom.uids import tag
from scrd.outputs import history
from scrd.outputs.history import Found, Seen
from scrd.outputs.history_file import HistoryError, models, read_images, reading, unscored

TOLD = Covariates(512, 256, (0.5, 0.7), "HOOLI", "DICOM", 0.1, 0.2, 0.3)
PLAIN = Covariates(512, 256, None, None, None, 0.1, 0.2, 0.3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.sqlite"


def opened(path, model="m"):
    return State(path, name="there", model=model)


def done(state, number, found=NOTHING, **named):
    state.record(queue=[Arrival(f"k{number}", f"1.2.{number}", f"{time.time_ns()}")])
    state.finish(state.claim().key, named.pop("outcome", "done"), found=found, **named)


def rows(path, query):
    with reading(path) as db:
        return [tuple(row) for row in db.execute(query)]


def test_a_study_and_its_images_are_kept_as_they_were(path):
    seen = [
        Seen("s1", 0.25, False, TOLD),
        Seen("s2", 1 / 3, True, PLAIN),
        Seen("s2", 2, True, None),
    ]
    with opened(path) as state:
        done(state, 1, Found(4, 1, 0.5, 0.01, seen), flagged=True, seconds=2.5)
        done(state, 2, outcome="refused", reason="no feet")
        done(state, 3, Found(1, 0, 0.5, 0.5, seen[:1]))
    with opened(path, "other") as state:
        done(state, 4, Found(1, 0, 0.5, 0.5, seen[:1]))
    with reading(path) as db:
        kept = list(read_images(db, "m"))
        assert [one.image for one in kept] == [*seen, seen[0]]
        assert [(one.entry, one.place) for one in kept] == [(1, 1), (1, 2), (1, 3), (3, 1)]
        assert (unscored(db, "m"), unscored(db, "other")) == (1, 0)
        assert sorted(models(db)) == ["m", "other"]
    what = "study, outcome, reason, flagged, images, score, p_value, seconds"
    assert rows(path, f"SELECT {what} FROM history")[:2] == [
        (tag("1.2.1"), "done", "", 1, 4, 0.5, 0.01, 2.5),
        (tag("1.2.2"), "refused", "no feet", 0, 0, None, None, 0.0),
    ]


def test_no_uid_is_in_the_history(path):
    with opened(path) as state:
        done(state, 1, Found(1, 0, 0.5, 0.5, [Seen("s", 0.5, False, TOLD)]))
    for table in ("history", "images"):
        assert "1.2.1" not in str(rows(path, f"SELECT * FROM {table}"))


def test_a_study_and_its_images_are_kept_whole_or_not_at_all(path):
    with opened(path) as state:
        with pytest.raises(sqlite3.Error):
            done(state, 1, Found(1, 0, 0.5, 0.5, [Seen("s", 0.5, None, TOLD)]))
        assert state.counts == {"queued": 1}
    assert rows(path, "SELECT COUNT(*) FROM history") == [(0,)]


def test_the_older_half_goes_when_there_are_too_many_images(path, monkeypatch):
    monkeypatch.setattr(history, "IMAGES", 100)
    seen = [Seen("s", 0.5, False, TOLD)] * 10
    counts = []
    with opened(path) as state:
        for number in range(40):
            done(state, number, Found(10, 0, 0.5, 0.5, seen))
            counts.append(rows(path, "SELECT COUNT(*), MAX(entry) FROM images")[0])
    assert max(count for count, _ in counts) == 100
    assert [last for _, last in counts] == list(range(1, 41))
    begun_anew = sum(b < a for (a, _), (b, _) in zip(counts, counts[1:], strict=False))
    assert begun_anew == 5  # and not with every study
    assert rows(
        path, "SELECT COUNT(*) FROM history WHERE id < (SELECT MIN(entry) FROM images)"
    ) == [(0,)]


def test_the_newest_study_stays_whatever_its_size(path, monkeypatch):
    monkeypatch.setattr(history, "IMAGES", 100)
    with opened(path) as state:
        for number in range(2):
            done(state, number, Found(300, 0, 0.5, 0.5, [Seen("s", 0.5, False, TOLD)] * 300))
    assert rows(path, "SELECT entry, COUNT(*) FROM images GROUP BY entry") == [(2, 300)]


def test_what_is_older_than_the_retention_goes(path):
    with opened(path) as state:
        for number in range(4):
            done(state, number, Found(1, 0, 0.5, 0.5, [Seen("s", 0.5, False, TOLD)]))
        for entry, age in ((1, 91), (2, 46), (3, 44)):
            now = time.time() - age * 86_400
            state._db.execute("UPDATE history SET at = ? WHERE id = ?", (now, entry))
        done(state, 4)
    assert rows(path, "SELECT id FROM history") == [(3,), (4,), (5,)]
    assert rows(path, "SELECT entry FROM images") == [(3,), (4,)]


def test_other_files_are_refused_by_name(path, tmp_path):
    path.write_text("path,score")
    (tmp_path / "other").touch()
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE accounts (name TEXT)")
    db.close()
    for place, told in (
        (path, "not a state file of scrd watch"),
        (tmp_path / "other", "a database, but not a state file of scrd watch"),
        (tmp_path / "absent", "absent: cannot be read: No such file"),
    ):
        with pytest.raises(HistoryError, match=told) as error, reading(place):
            pass
        assert str(place) in str(error.value)
    with opened(tmp_path / "state") as state:
        state._db.execute("DROP TABLE images")
    with pytest.raises(HistoryError, match="older version, which kept no history"):
        read_status(tmp_path / "state", 0.0)


def test_reading_waits_for_nobody_and_changes_nothing(path):
    def digest():
        return hashlib.sha256(path.read_bytes()).hexdigest()

    with opened(path) as state:
        done(state, 1, Found(1, 0, 0.5, 0.5, [Seen("s", 0.5, False, TOLD)]))
        before = digest()
        with state._transaction():
            state._db.execute("DELETE FROM history")
            assert rows(path, "SELECT COUNT(*) FROM history") == [(1,)]
            state._db.execute("UPDATE archive SET mark = 'x'")
        with reading(path) as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM images")
        assert digest() == before
    at_rest = digest()
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(path.name + "-")] == []
    read_status(path, 0.0)
    assert digest() == at_rest
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(path.name + "-")] == []


def test_killed_at_any_moment_it_is_whole_and_can_be_read(path):
    program = Path(__file__).with_name("finishing.py")
    rng = random.Random(0)
    studies = 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, program, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.random() / 10)
        process.kill()
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL
        before = path.read_bytes()
        status = read_status(path, 0.0)
        assert status.health == "well"  # for a minute nobody can know
        assert read_status(path, 0.0, time.time() + 61).health == "dead"
        assert status.done > studies
        studies = status.done
        (counted,) = rows(path, "SELECT COUNT(*), COUNT(DISTINCT study) FROM history")
        assert counted == (studies, studies)
        assert rows(path, "SELECT COUNT(*) FROM studies WHERE status = 'done'") == [(studies,)]
        assert rows(path, "SELECT COUNT(*) FROM images") == [(50 * studies,)]
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert path.read_bytes() == before
