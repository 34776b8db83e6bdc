"""A real server in a process of its own, and what tests send to it."""

import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import httpx
import numpy as np
from PIL import Image


class Server:
    """`scrd serve` on a free port of this machine."""

    program = (sys.executable, "-c", "from scrd.cli import run; run()")

    def __init__(self, store, models, *options, program=program):
        self.store, self.models, self.options = store, models, options
        self.program = program
        self.log = store.with_name(store.name + ".log")
        self.url = ""
        self.process = None

    def start(self, *, wait=True):
        before = len(self.text())
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [*self.program, "serve", *map(str, self.models), "--store", str(self.store)]
                + ["--port", "0", "--threads", "1", *map(str, self.options)],
                stderr=log,
                stdout=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        self._until(lambda: "listening on " in self.text()[before:])
        line = self.text()[before:].split("listening on ")[1]
        self.url = line.splitlines()[0]
        if wait:
            self._until(lambda: " ready" in self.text()[before:])
        return self

    def _until(self, true, seconds=60):
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.02)

    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def client(self, **headers):
        verify = not self.url.startswith("https")
        return httpx.Client(base_url=self.url, timeout=30, headers=headers, verify=verify)

    def children(self, module):
        found = []
        for line in subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
        ).stdout.splitlines():
            pid, _, arguments = line.strip().partition(" ")
            if f"scrd.serve.{module}" in arguments:
                found.append(int(pid))
        return found

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def changed(folder, *, server="", worker=""):
    """A ``program`` for `Server` that runs lines of Python before the server or the worker does.

    Those of the worker have ``channel``, its line to the server.
    """
    (folder / "program.py").write_text(
        "from scrd.cli import run\n"
        "from scrd.serve import child\n"
        "started = child.asyncio.create_subprocess_exec\n"
        "async def start(python, _, module, *rest, **given):\n"
        "    way = ('-m', module)\n"
        "    if module == 'scrd.serve.worker':\n"
        f"        way = ({str(folder / 'worker.py')!r},)\n"
        "    return await started(python, *way, *rest, **given)\n"
        "child.asyncio.create_subprocess_exec = start\n"
        f"{server}\n"
        "run()\n"
    )
    (folder / "worker.py").write_text(
        "import os, sys, time\n"
        "from scrd.serve import worker\n"
        "channel = worker.Channel()\n"
        "worker.Channel = lambda: channel\n"
        f"{worker}\n"
        "worker.main(*sys.argv[1:])\n"
    )
    return [sys.executable, str(folder / "program.py")]


def holding(mark, until):
    """Lines for a worker that `changed`: makes the file ``mark``, scores once ``until``.

    How long anything takes is then no matter of the machine.
    """
    return (
        "from scrd.scoring.scorer import Scorer\n"
        "answers = Scorer.answers\n"
        "def held(self, *given):\n"
        f"    open({str(mark)!r}, 'w').close()\n"
        f"    while not {until}:\n"
        "        time.sleep(0.02)\n"
        "    return answers(self, *given)\n"
        "Scorer.answers = held\n"
    )


def until(true, seconds=60):
    """Wait for something to be true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def picture(seed=0, size=(64, 64), spot=False):
    """PNG bytes of a soft disc, like the training images of the fixture's model."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(rows - size[0] / 2 + rng.normal(), columns - size[1] / 2)
    disc = 1 / (1 + np.exp((distance - min(size) / 3) / 2))
    pixels = 60 + rng.uniform(40, 110) * disc + rng.normal(0, 3, size)
    if spot:
        pixels[size[0] // 2 :, size[1] // 2 :][:12, :12] = 250
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def zipped(files, **options):
    """Bytes of a zip of (name, content)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return file.getvalue()


def send(client, *files, **fields):
    """Post (name, content) files as one job."""
    parts = [("files", (name, content)) for name, content in files]
    return client.post("/v1/score", files=parts, data=fields)


def finished(client, job, seconds=60):
    """The job when it has ended."""
    end = time.monotonic() + seconds
    while True:
        answer = client.get(f"/v1/jobs/{job}").json()
        if answer["status"] in ("done", "failed"):
            return answer
        assert time.monotonic() < end, answer
        time.sleep(0.03)
