"""Every accepted job has exactly one result, whoever is killed, and when."""

import os
import random
import signal
import sqlite3
import threading
import time

import httpx
import pytest
from exports import write_export
from serving import Server, changed, finished, holding, picture, send, until

from scrd.serve.client import Client


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A model that takes some hundredths of a second an image."""
    return write_export(tmp_path_factory.mktemp("slow") / "slow", delay=4)


def stored(server):
    db = sqlite3.connect(f"file:{server.store / 'serve.sqlite'}?mode=ro", uri=True)
    try:
        jobs = dict(db.execute("SELECT id, status FROM jobs").fetchall())
        results = db.execute("SELECT job, COUNT(*) FROM results GROUP BY job").fetchall()
    finally:
        db.close()
    return jobs, dict(results)


def assert_each_once(server, accepted):
    jobs, results = stored(server)
    assert set(accepted) <= set(jobs)
    assert {jobs[job] for job in accepted} == {"done"}
    assert {results[job] for job in accepted} == {1}
    assert set(results) == {job for job, status in jobs.items() if status == "done"}
    assert sorted(p.name for p in (server.store / "results").iterdir()) == sorted(results)


def test_the_worker_is_killed_at_ten_moments(serve, slow):
    server = serve(f"slow={slow}")
    rng = random.Random(0)
    accepted, killed = [], set()
    with server.client() as client:
        end = time.monotonic() + 120
        while len(killed) < 10 and time.monotonic() < end:
            for i in range(4):
                name = f"{len(killed)}.{i}.png"
                accepted.append(send(client, (name, picture(i))).json()["id"])
            time.sleep(rng.uniform(0.1, 1.5))
            for pid in set(server.children("worker")) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        assert len(killed) == 10
        for job in accepted:
            assert finished(client, job, 120)["status"] == "done"
    assert_each_once(server, accepted)


def test_the_server_is_killed_at_ten_moments(serve, slow):
    """A client that repeats what was not answered sends nothing twice."""
    server = serve(f"slow={slow}")
    rng = random.Random(1)
    accepted, failures = [], []
    sending = threading.Event()

    def stream():
        i = 0
        while not sending.is_set():
            key = {"idempotency-key": f"picture {i}"}
            files = [("files", (f"{i}.png", picture(i)))]
            while True:
                try:
                    with server.client() as client:
                        answer = client.post("/v1/score", files=files, headers=key)
                    if answer.status_code == 202:
                        accepted.append(answer.json()["id"])
                        break
                    failures.append(answer.status_code)
                except httpx.TransportError:
                    pass
                if sending.is_set():
                    return
                time.sleep(0.05)
            i += 1

    sender = threading.Thread(target=stream)
    sender.start()
    for _ in range(10):
        time.sleep(rng.uniform(0.1, 1.5))
        server.kill()
        server.start(wait=False)
    time.sleep(0.5)
    sending.set()
    sender.join()
    assert len(accepted) == len(set(accepted)) >= 10 and failures == []
    with server.client() as client:
        for job in accepted:
            assert finished(client, job, 120)["status"] == "done"
    assert_each_once(server, accepted)


def test_nobody_lives_on_without_the_server(serve, slow):
    server = serve(f"slow={slow}")
    with server.client() as client:
        job = send(client, ("a.png", picture(0))).json()["id"]
        row = finished(client, job)["results"][0]
        assert client.get(f"/v1/results/{row['id']}/overlay.png").status_code == 200
    children = server.children("worker") + server.children("drawer")
    assert len(children) == 2
    server.kill()
    end = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}") for pid in children):
        assert time.monotonic() < end
        time.sleep(0.05)


DEADLY = (
    "from scrd.data import prepared\n"
    "read = prepared.read_image\n"
    "def deadly(source, **given):\n"
    "    if b'deadly' in open(source.path, 'rb').read():\n"
    "        os.abort()\n"
    "    return read(source, **given)\n"
    "prepared.read_image = deadly\n"
)
"""For a worker: a decoder that brings the process down."""


def test_a_job_that_the_worker_dies_of_fails_and_the_others_do_not(serve, slow, tmp_path):
    server = serve(f"slow={slow}", program=changed(tmp_path, worker=DEADLY))
    with server.client() as client:
        jobs = [
            send(client, (f"{i}.png", picture(i) + (b"deadly" if i == 3 else b""))).json()["id"]
            for i in range(8)
        ]
        ends = [finished(client, job) for job in jobs]
        assert [end["status"] for end in ends] == ["done"] * 3 + ["failed"] + ["done"] * 4
        assert "signal 6" in ends[3]["reason"] and "3 times" in ends[3]["reason"]
        figures = client.get("/metrics").text
        assert "scrd_worker_deaths_total 3.0" in figures
        assert client.get("/readyz").status_code == 200


def test_what_only_lay_ready_is_not_blamed_for_a_death(serve, exports, tmp_path):
    go, held = tmp_path / "go", tmp_path / "held"
    holds = holding(held, until=f"os.path.exists({str(go)!r})")
    program = changed(tmp_path, worker=DEADLY + holds)
    server = serve(exports / "first", program=program)
    with server.client() as client:
        in_hand = send(client, ("0.png", picture(0))).json()["id"]
        until(held.exists)
        # one reader, which reads in their order
        ready = [send(client, (f"{i}.png", picture(i))).json()["id"] for i in range(1, 4)]
        bad = send(client, ("bad.png", picture(4) + b"deadly")).json()["id"]
        until(lambda: "2 jobs in hand wait again" in server.text())
        go.touch()
        for job in (in_hand, *ready):
            assert finished(client, job)["status"] == "done"
        assert finished(client, bad)["status"] == "failed"
    db = sqlite3.connect(f"file:{server.store / 'serve.sqlite'}?mode=ro", uri=True)
    crashes = dict(db.execute("SELECT id, crashes FROM jobs").fetchall())
    db.close()
    assert crashes == dict.fromkeys(ready, 0) | {in_hand: 1, bad: 3}


def test_on_sigterm_the_job_in_hand_ends_and_the_others_wait(serve, exports, tmp_path):
    held = tmp_path / "held"
    program = changed(tmp_path, worker=holding(held, until="channel.resting.is_set()"))
    server = serve(exports / "first", program=program)
    with server.client() as client:
        accepted = [send(client, ("0.png", picture(0))).json()["id"]]
        until(held.exists)
        accepted += [send(client, (f"{i}.png", picture(i))).json()["id"] for i in range(1, 12)]
    assert server.stop() == 0
    jobs, results = stored(server)
    assert jobs == dict.fromkeys(accepted, "queued") | {accepted[0]: "done"}
    assert results == {accepted[0]: 1}
    server.program = Server.program
    server.start()
    with server.client() as client:
        for job in accepted:
            finished(client, job)
    assert_each_once(server, accepted)


def test_what_was_half_uploaded_is_not_kept(serve, slow):
    server = serve(f"slow={slow}")

    def half():
        yield b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n"
        yield picture(0)[:100]
        server.kill()
        yield b""

    kind = {"content-type": "multipart/form-data; boundary=x"}
    with server.client() as client, pytest.raises(httpx.TransportError):
        client.post("/v1/score", content=half(), headers=kind)
    server.start()
    assert stored(server) == ({}, {})
    assert list((server.store / "uploads").iterdir()) == list((server.store / "work").iterdir())
    assert list((server.store / "work").iterdir()) == []


def test_one_server_a_store(serve, slow, tmp_path):
    server = serve(f"slow={slow}")
    import subprocess
    import sys

    second = subprocess.run(
        [sys.executable, "-c", "from scrd.cli import run; run()", "serve", str(slow)]
        + ["--store", str(server.store), "--port", "0"],
        capture_output=True,
        text=True,
    )
    assert second.returncode == 2
    assert "another scrd serve is using this store" in second.stderr


def test_the_client_waits_for_a_service_that_restarts(serve, slow, tmp_path):
    server = serve(f"slow={slow}")
    (tmp_path / "a.png").write_bytes(picture(0))
    port = server.url.rsplit(":", 1)[1]
    server.options = ("--port", port)
    server.kill()
    threading.Timer(0.5, server.start, kwargs={"wait": False}).start()
    with Client(f"http://127.0.0.1:{port}") as client:
        assert client.score([tmp_path / "a.png"]).status == "done"
