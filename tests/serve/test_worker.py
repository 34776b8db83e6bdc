"""The worker: what is read while another job is scored, what is scored together, in which order."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image
from serving import picture

from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Inferred, Scorer
from scrd.serve import worker as module
from scrd.serve.worker import Worker


class Means(Scorer):
    """Answers with means, and holds each batch until it is let go."""

    preprocessing = Preprocessing(Intensity(0, 255, 0, "grey", "data"), 32)
    calibration = Calibration((0.0, 1.0), (0, 1), 0.5, 0.5, 1.0, (0.0, 1.0), "mean")
    contract = Contract()

    def __init__(self, fingerprint="a" * 64, bad=()):
        self.fingerprint, self.bad = fingerprint, bad
        self.batches, self.go = [], threading.Semaphore(0)
        self.begun = []  # a batch each

    def read(self, sources, **options):
        for batch in super().read(sources, **options):
            self.begun.append(len(batch.index))
            yield batch

    def infer(self, images, content, *, maps=True):
        self.batches.append(len(images))
        assert self.go.acquire(timeout=20)
        means = images.mean(axis=(1, 2, 3)).astype(np.float64)
        if any(round(255 * float(mean)) in self.bad for mean in means):
            raise RuntimeError("the network fails")
        return Inferred(images[:, 0], {"mean": means}, np.ones((len(images), 1), np.float32))


class Line:
    """The server's end of the channel, in this process."""

    def __init__(self):
        self.resting, self.said = threading.Event(), []
        self._messages, self._there = [], threading.Condition()

    def send(self, **message):
        with self._there:
            self._messages.append(message)
            self._there.notify()

    def next(self):
        with self._there:
            self._there.wait_for(lambda: self._messages)
            return self._messages.pop(0)

    def tell(self, **message):
        self.said.append((message["say"], message.get("job", message.get("name"))))


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def scorers(monkeypatch):
    found = {"a": Means(), "b": Means("b" * 64)}
    monkeypatch.setattr(module, "load_scorer", lambda folder, device: found[folder.name])
    monkeypatch.setattr(module, "describe", lambda folder, scorer: None)
    return found


@pytest.fixture
def begin(line, scorers, tmp_path, monkeypatch):
    """Starts a worker that has loaded ``a``; gives a function that sends jobs to it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (tmp_path / "work").mkdir()
    worker = Worker(line, tmp_path, "cpu", 4)
    threading.Thread(target=worker.run, daemon=True).start()
    line.send(do="load", name="a", folder="a")
    until(lambda: ("loaded", "a") in line.said)

    def send(*jobs, model="a"):
        told = []
        for job, files in jobs:
            folder = tmp_path / "uploads" / job
            folder.mkdir(parents=True)
            for i, content in enumerate(files):
                (folder / str(i)).write_bytes(content)
            names = [f"{i}.png" for i in range(len(files))]
            told.append({"id": job, "names": names, "model": None, "most": 9})
        models = {"m": {"active": scorers[model].fingerprint}}
        line.send(do="score", models=models, jobs=told)

    return send


def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def pictures(count, seed=0):
    return [picture(seed + i) for i in range(count)]


def done(line):
    return [job for say, job in line.said if say == "done"]


def test_jobs_are_read_while_another_is_scored_and_then_fill_a_batch(line, scorers, begin):
    begin(("first", pictures(1)))
    until(lambda: scorers["a"].batches == [1])
    begin(("b", pictures(2)), ("c", pictures(1)))
    begin(("d", pictures(1)), ("e", pictures(3)))
    until(lambda: len(scorers["a"].begun) == 5)  # nobody let the first go yet
    assert not done(line)
    time.sleep(0.3)  # until that is known
    for _ in range(3):
        scorers["a"].go.release()
    until(lambda: len(done(line)) == 5)
    assert scorers["a"].batches == [1, 4, 3]
    assert done(line) == ["first", "b", "c", "d", "e"]


def test_a_job_of_many_images_is_scored_by_itself(line, scorers, begin):
    scorers["a"].go.release(9)
    begin(("many", pictures(9)))
    begin(("one", pictures(1)))
    until(lambda: done(line) == ["many", "one"])
    assert scorers["a"].batches == [4, 4, 1, 1]
    # what reads on may yet die of it
    assert [job for say, job in line.said if say == "read"] == ["one"]


def test_what_was_asked_between_two_jobs_is_done_between_them(line, scorers, begin):
    begin(("first", pictures(1)))
    until(lambda: scorers["a"].batches == [1])
    begin(("second", pictures(1)))
    line.send(do="load", name="b", folder="b")
    begin(("third", pictures(1)))
    until(lambda: ("begun", "third") in line.said)
    scorers["a"].go.release(3)
    until(lambda: len(done(line)) == 3)
    told = [what for what in line.said if what[0] in ("done", "loaded")]
    assert told[1:] == [("done", "first"), ("done", "second"), ("loaded", "b"), ("done", "third")]


def test_models_do_not_share_a_batch(line, scorers, begin):
    line.send(do="load", name="b", folder="b")
    until(lambda: ("loaded", "b") in line.said)
    begin(("first", pictures(1)))
    until(lambda: scorers["a"].batches == [1])
    begin(("a", pictures(1)))
    begin(("b", pictures(1)), model="b")
    until(lambda: ("begun", "b") in line.said)
    scorers["a"].go.release(2)
    scorers["b"].go.release()
    until(lambda: len(done(line)) == 3)
    assert (scorers["a"].batches, scorers["b"].batches) == ([1, 1], [1])


def test_a_job_that_the_network_fails_of_fails_alone(line, scorers, begin, tmp_path):
    bright = io.BytesIO()
    pixels = np.random.default_rng(0).integers(200, 256, (40, 40), np.uint8)
    Image.fromarray(pixels).save(bright, "PNG")
    scorers["a"].bad = range(200, 256)
    begin(("first", pictures(1)))
    until(lambda: scorers["a"].batches == [1])
    begin(("good", pictures(1)), ("bad", [bright.getvalue()]), ("fine", pictures(1)))
    until(lambda: len(scorers["a"].begun) == 4)
    time.sleep(0.3)  # so that they are scored together
    scorers["a"].go.release(9)
    until(lambda: len(done(line)) == 3)
    assert done(line) == ["first", "good", "fine"]
    assert ("failed", "bad") in line.said
    assert scorers["a"].batches[:2] == [1, 3]  # together first
    assert (tmp_path / "work" / "fine" / "report.json").exists()


def test_what_rests_gives_back_what_it_has_read(line, scorers, begin):
    begin(("first", pictures(1)))
    until(lambda: scorers["a"].batches == [1])
    begin(("second", pictures(1)))
    until(lambda: ("begun", "second") in line.said)
    line.resting.set()
    begin(("third", pictures(1)))
    until(lambda: ("back", "third") in line.said)
    scorers["a"].go.release()
    until(lambda: ("back", "second") in line.said)
    assert done(line) == ["first"]
