"""How work is recorded, on a device that only writes down what is asked of it."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from scrd.system.capture import captured

GPU = torch.device("cuda", 1)


@pytest.fixture
def asked(monkeypatch):
    """What was asked for, in order; ``asked.here`` is the current stream."""

    class Asked(list):
        here = "default"

    told = Asked()

    class Stream:
        def wait_stream(self, other):
            told.append(("wait", other))

    class Graph:
        def replay(self):
            told.append("replay")

    @contextmanager
    def on(stream):
        told.append(("on", stream))
        yield

    @contextmanager
    def recording(graph, stream, capture_error_mode):
        told.append(("record", stream, capture_error_mode))
        try:
            yield
        finally:
            if told[-1] == "failed":
                raise RuntimeError("failed due to a previous error during capture")

    fakes = {
        "device": lambda device: nullcontext(told.append(("device", device))),
        "current_stream": lambda device: told.here,
        "default_stream": lambda device: "default",
        "Stream": lambda device: Stream(),
        "stream": on,
        "synchronize": lambda device: told.append("synchronize"),
        "CUDAGraph": Graph,
        "graph": recording,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return told


def test_warmed_up_and_recorded_on_one_stream_that_is_not_the_default(asked):
    replay = captured(lambda: asked.append("work"), GPU)
    assert asked[0] == ("device", GPU)
    recorded = [event for event in asked if event[0] in ("on", "record")]
    stream = recorded[0][1]
    assert stream != "default" and [event[1] for event in recorded] == [stream] * 2
    start = asked.index(("record", stream, "thread_local"))
    assert asked[:start].count("work") >= 1 and asked[start - 1] == "synchronize"
    assert asked[start + 1 :] == ["work"]
    replay()
    assert asked[-1] == "replay"


def test_recorded_on_the_stream_where_it_will_run(asked):
    asked.here = "own"
    captured(lambda: asked.append("work"), GPU)
    assert {event[1] for event in asked if event[0] in ("on", "record")} == {"own"}


def test_the_first_error_is_told(asked):
    def work():
        asked.append("work")
        if asked.count("work") > 3:
            asked.append("failed")
            raise RuntimeError("cannot wait while recording")

    with pytest.raises(RuntimeError, match="cannot wait while recording"):
        captured(work, GPU)
