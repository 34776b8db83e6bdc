"""What the store keeps, whole, once, for its owner alone; and what goes when it is old."""

import json
import os
import sqlite3
import threading
import time

import pytest

from scrd.serve.audit import Audit
from scrd.serve.jobs import Done, Jobs, new_id
from scrd.serve.marks import Marks
from scrd.serve.results import Filter, Results
from scrd.serve.retention import forget_old
from scrd.serve.store import Store, StoreError


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def jobs(store):
    return Jobs(store)


def accepted(jobs, content=b"x", **given):
    folder = jobs.begin()
    (folder / "0").write_bytes(content)
    return jobs.accept(folder, ["a.png"], len(content), owner="anna", **given)


def row(job, place=0, **changed):
    plain = {"id": new_id(), "job": job, "place": place, "shadow": 0, "model": "m"}
    plain |= {"fingerprint": "f", "name": "a.png", "kind": "picture", "created": time.time()}
    plain |= {"score": 1.0, "p_value": 0.5, "flag": 0, "refusal": None, "doubts": 0, "images": 1}
    detail = {"images": [{"score": 1.0, "file": 0, "frame": None, "map": 0}]}
    return plain | {"detail": json.dumps(detail | {"series": None, "study": None})} | changed


def done(store, job, *rows, size=10):
    work = store.work / job
    work.mkdir()
    (work / "maps.npy").write_bytes(bytes(size))
    return Done(job, list(rows) or [row(job)], [], work)


def test_nobody_else_can_look_into_it(store):
    modes = [p.stat().st_mode & 0o077 for p in store.folder.iterdir() if p.is_dir()]
    assert set(modes) == {0} and len(modes) == 4
    for path in store.folder.glob("serve.sqlite*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_job_is_finished_once(store, jobs):
    job = accepted(jobs)
    jobs.finish([done(store, job.id)])
    jobs.finish([done(store, job.id)])
    assert len(Results(store).of_job(job.id)) == 1
    assert jobs.get(job.id).status == "done" and list(store.work.iterdir()) == []


def test_several_jobs_are_finished_all_or_none(store, jobs):
    first, second = accepted(jobs), accepted(jobs)
    broken = done(store, second.id, row(second.id, id="same"), row(second.id, 1, id="same"))
    with pytest.raises(sqlite3.IntegrityError):
        jobs.finish([done(store, first.id), broken])
    assert jobs.waiting().jobs == 2 and store.rows("SELECT * FROM results") == []
    # tried anew over what was left
    jobs.finish([done(store, first.id), done(store, second.id)])
    assert jobs.waiting().jobs == 0


def test_jobs_come_in_their_turn(jobs):
    names = [accepted(jobs).id for _ in range(5)]
    assert [job.id for job in jobs.next(3, ())] == names[:3]
    assert [job.id for job in jobs.next(3, names[:2])] == names[2:5]
    jobs.fail(names[2], "why")
    assert names[2] not in [job.id for job in jobs.next(9, ())]
    assert jobs.get(names[2]).reason == "why"
    assert [job.crashes for job in jobs.crashed(names[:2])] == [1, 1]


def test_one_key_is_one_job_also_at_the_same_time(store, jobs):
    found = []

    def send():
        found.append(accepted(jobs, key="the same").id)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert len(list(store.uploads.iterdir())) == 1


def test_what_was_not_accepted_goes_at_the_start(store, jobs):
    (jobs.begin() / "0").write_bytes(b"half")
    kept = accepted(jobs)
    (store.results / kept.id).mkdir()
    Jobs(store)
    assert [p.name for p in store.uploads.iterdir()] == [kept.id]
    assert list(store.results.iterdir()) == []


def test_what_is_old_or_has_no_room_goes_and_marks_stay(store, jobs):
    names = [accepted(jobs).id for _ in range(4)]
    jobs.finish([done(store, name, size=1000) for name in names[:3]])
    with store.change() as db:
        for days, name in ((40, names[0]), (3, names[1]), (2, names[2])):
            ended = time.time() - days * 86400
            db.execute("UPDATE jobs SET ended = ? WHERE id = ?", (ended, name))
    (result,) = Results(store).of_job(names[0])
    marks = Marks(store)
    marks.put(result["id"], "wrong", "why", "anna")
    assert forget_old(store, jobs, days=30, gigabytes=1) == 1
    assert [p.name for p in store.results.iterdir()] != []
    assert forget_old(store, jobs, days=30, gigabytes=1.5e-6) == 1
    assert {p.name for p in store.results.iterdir()} == {names[2]}
    assert {p.name for p in store.uploads.iterdir()} == {names[2], names[3]}
    assert jobs.get(names[3]).status == "queued"
    assert result["id"] in marks.csv() and "a.png" not in marks.csv()
    assert forget_old(store, jobs, days=30, gigabytes=0) == 1
    assert jobs.get(names[3]).status == "queued"


def test_results_are_filtered(store, jobs):
    job = accepted(jobs).id
    rows = [
        row(job, 0, name="Anna.png", score=3.0, flag=1, p_value=0.01),
        row(job, 1, name="berta.png", score=1.0, doubts=2),
        row(job, 2, name="c%.png", score=None, p_value=None, flag=None, refusal="broken"),
        row(job, 0, shadow=1, name="Anna.png", score=9.0, flag=1),
    ]
    jobs.finish([done(store, job, *rows)])
    results = Results(store)
    Marks(store).put(rows[0]["id"], "right", "", "x")

    def names(sort="name", **asked):
        return [r["name"] for r in results.page(Filter(**asked), sort)[1]]

    assert names() == ["Anna.png", "berta.png", "c%.png"]
    assert names(flag=True) == ["Anna.png"] and names(flag=False) == ["berta.png"]
    assert names(refused=True) == ["c%.png"] and names(doubted=True) == ["berta.png"]
    assert names(name="ERTA") == ["berta.png"] and names(name="%") == ["c%.png"]
    assert names(marked="right") == names(marked="any") == ["Anna.png"]
    assert names(marked="none") == ["berta.png", "c%.png"] and names(marked="wrong") == []
    assert names(since=time.time() + 10) == [] and names(model="other") == []
    assert names("score") == ["Anna.png", "berta.png", "c%.png"]
    assert names("p_value")[-1] == "c%.png" and names("doubts")[0] == "berta.png"
    assert names(shadow=True) == ["Anna.png"]
    assert [p for _, p in results.p_values()] == [0.01, 0.5]
    assert [p for _, p in results.p_values(last=1)] == [0.5]
    assert results.p_values("other") == []
    assert results.counts(0) == {"results": 3, "flagged": 1, "refused": 1, "doubted": 1}
    assert results.refusals(0) == [("broken", 1)]


def test_ten_thousand_results_are_paged_quickly(store, jobs):
    job = accepted(jobs).id
    jobs.finish([done(store, job, *[row(job, i, score=float(i)) for i in range(10_000)])])
    results = Results(store)
    begun = time.perf_counter()
    total, some = results.page(Filter(), "score", 9_000, 100)
    assert total == 10_000 and [r["score"] for r in some[:2]] == [999.0, 998.0]
    assert time.perf_counter() - begun < 1


def test_the_audit_is_written_by_and_by(store):
    audit = Audit(store)
    for i in range(1200):
        audit.note("anna", "::1", "GET /v1/results", str(i), 200)
    lines = audit.lines(limit=5000)
    assert len(lines) == 1200 and lines[0]["object"] == "1199"
    with store.change() as db:
        db.execute("UPDATE audit SET at = at - 400 * 86400 WHERE object < '5'")
    audit.forget()
    assert 0 < len(audit.lines(limit=5000)) < 1200
    audit.close()


def test_what_is_no_store_is_refused(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "serve.sqlite").write_bytes(b"hello" * 1000)
    with pytest.raises(StoreError, match=r"serve\.sqlite"):
        Store(folder)
    (folder / "serve.sqlite").unlink()
    with sqlite3.connect(folder / "serve.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="format 99"):
        Store(folder)
    (folder / "serve.sqlite").unlink()
    with Store(folder), pytest.raises(StoreError, match="another scrd serve"):
        Store(folder)
    if os.geteuid():
        os.chmod(folder, 0o500)
        with pytest.raises(StoreError, match="cannot be written"):
            Store(folder)


def test_it_closes_once_what_another_thread_is_at_is_done(tmp_path):
    """To close a connection under a thread that uses it brings the process down."""
    store = Store(tmp_path / "store")
    begun, go = threading.Event(), threading.Event()

    def write():
        with store.change(light=True) as db:
            begun.set()
            go.wait(20)
            db.execute("INSERT INTO audit VALUES (1, 'anna', '', 'GET', '', 200)")

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(20)
    threading.Timer(0.2, go.set).start()
    store.close()
    assert go.is_set()
    writer.join()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"), store.change():
        pass
    with Store(tmp_path / "store") as again:
        assert len(again.rows("SELECT * FROM audit")) == 1
