"""Load on `scrd serve`: clients that send images, beside `scrd score` on the same ones.

``python benchmarks/service_load.py MODEL IMAGES [--images 2000] [--clients 8] [--threads 1]``

Starts a server of its own on a free port, sends every image as a job of its own from so many
clients at once, each of which waits for its result before it sends the next, and prints as JSON:
whether every job has exactly one result, images a second, the seconds from sending to result
(median, 99th percentile, longest), the seconds of processor that client, server and worker took,
and the memory of server and worker at a tenth of the work and at its end. Then `scrd score` scores
the same images, drawing no overlays, as the service draws none unasked.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from scrd.data.finding import find_images

SCRD = [sys.executable, "-c", "from scrd.cli import run; run()"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model", type=Path)
    options.add_argument("images_in", metavar="IMAGES", type=Path, help="folder")
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--a-job", type=int, default=1, help="images a job")
    given = options.parse_args()
    found = find_images(given.images_in)
    files = [found[i % len(found)] for i in range(given.images)]
    with tempfile.TemporaryDirectory() as folder:
        served = serve(given.model, files, given.clients, given.threads, given.a_job, Path(folder))
        offline = score(given.model, files, given.threads, Path(folder))
    served["scrd_score_images_per_second"] = round(offline, 2)
    served["share_of_scrd_score"] = round(served["images_per_second"] / offline, 3)
    print(json.dumps(served, indent=1))


def serve(
    model: Path, files: list[Path], clients: int, threads: int, a_job: int, folder: Path
) -> dict[str, object]:
    """What came of sending all files."""
    log = folder / "log"
    begun = time.perf_counter()
    with open(log, "w") as stream:
        server = subprocess.Popen(
            [*SCRD, "serve", str(model), "--store", str(folder / "store"), "--port", "0"]
            + ["--threads", str(threads)],
            stderr=stream,
        )
    while " ready" not in log.read_text():
        assert server.poll() is None, log.read_text()
        time.sleep(0.01)
    ready = time.perf_counter() - begun
    url = log.read_text().split("listening on ")[1].split()[0]
    todo: queue.SimpleQueue[list[Path]] = queue.SimpleQueue()
    for i in range(0, len(files), a_job):
        todo.put(files[i : i + a_job])
    seconds: list[float] = []
    results: Counter[str] = Counter()
    refusals: Counter[int] = Counter()
    memory: list[tuple[int, int]] = []

    def client() -> None:
        with httpx.Client(base_url=url, timeout=120) as http:
            while True:
                try:
                    some = todo.get_nowait()
                except queue.Empty:
                    return
                parts = [("files", (path.name, path.read_bytes())) for path in some]
                sent = time.perf_counter()
                answer = http.post("/v1/score", files=parts)
                while answer.status_code == 429:
                    refusals[429] += 1
                    time.sleep(float(answer.headers["retry-after"]))
                    answer = http.post("/v1/score", files=parts)
                answer.raise_for_status()
                job = answer.json()["id"]
                rows = []
                while not rows:
                    rows = http.get(f"/v1/jobs/{job}?wait=45").json()["results"]
                seconds.append(time.perf_counter() - sent)
                for row in rows:
                    results[row["id"]] += 1
                assert len(rows) == len(some), rows

    threads_ = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads_:
        thread.start()
    while any(thread.is_alive() for thread in threads_):
        time.sleep(0.5)
        memory.append((resident(server.pid), sum(map(resident, children(server.pid)))))
    took = time.perf_counter() - begun
    spent = [sum(os.times()[:2]), busy(server.pid), sum(map(busy, children(server.pid)))]
    total = httpx.get(f"{url}/v1/results").json()["total"]
    server.send_signal(signal.SIGTERM)
    code = server.wait(60)
    early = memory[len(memory) // 10]
    return {
        "images": len(files),
        "clients": clients,
        "images_a_job": a_job,
        "ready_seconds": round(ready, 2),
        "each_once": len(results) == total == len(files) and set(results.values()) == {1},
        "images_per_second": round(len(files) / took, 2),
        "seconds_median": round(float(np.median(seconds)), 3),
        "seconds_p99": round(float(np.percentile(seconds, 99)), 3),
        "seconds_longest": round(max(seconds), 3),
        "queue_full": refusals[429],
        "processor_seconds_client_server_worker": [round(one, 1) for one in spent],
        "server_megabytes": [early[0] >> 20, memory[-1][0] >> 20],
        "children_megabytes": [early[1] >> 20, max(m for _, m in memory[-10:]) >> 20],
        "exit_code": code,
    }


def score(model: Path, files: list[Path], threads: int, folder: Path) -> float:
    """Images a second of `scrd score`, the loading of the model left out."""
    links = folder / "links"
    links.mkdir()
    for i, path in enumerate(files):
        os.symlink(path.resolve(), links / f"{i:06}{path.suffix}")

    def run(place: Path, out: str) -> float:
        begun = time.perf_counter()
        subprocess.run(
            [*SCRD, "score", str(model), str(place), "--out", str(folder / out)]
            + ["--no-overlays", "--threads", str(threads)],
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - begun

    loading = run(links / f"{0:06}{files[0].suffix}", "one")
    return (len(files) - 1) / (run(links, "all") - loading)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def busy(pid: int) -> float:
    """Seconds of processor that a process took."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
