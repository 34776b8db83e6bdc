"""Progress without a terminal: what the lines say, when they come, and that they stop nothing."""

import io
import sys
import time

import pytest

from scrd.system import progress
from scrd.system.progress import counting, duration, say


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.01)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s"), (3900, "1 h 5 min")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_line_says_what_how_far_how_fast_and_how_long_still(clock):
    lines = progress._Lines("scoring", 300, "image")
    assert lines.text() == "scoring: image 0 of 300"
    clock[0] += 50  # set-up, which says nothing about the speed
    lines.advance(10)
    clock[0] += 4
    lines.advance(110)
    assert lines.text() == "scoring: image 110 of 300, 25 images/s, 8 s left"
    clock[0] += 6
    lines.advance(300)
    assert lines.summary() == "scoring: 300 images in 1 min 0 s"


def test_what_an_earlier_run_did_does_not_count_as_speed(clock):
    lines = progress._Lines("training", 600, "iteration")
    lines.advance(500)
    clock[0] += 10
    lines.advance(505, "loss 0.031, 8 images/s")
    expected = "training: iteration 505 of 600, loss 0.031, 8 images/s, 3 min 10 s left"
    assert lines.text() == expected


def test_the_speed_is_that_of_the_last_minute(clock):
    lines = progress._Lines("reading", 1000, "image")
    for done in range(0, 500, 100):
        lines.advance(done)
        clock[0] += 1
    for done in range(401, 501):
        clock[0] += 2
        lines.advance(done)
    assert "0.5 images/s, 16 min 40 s left" in lines.text()
    clock[0] += 1000  # stuck: the time that nothing moved counts
    assert "images/s, 4 h" in lines.text()


def test_lines_come_though_nothing_moves(often, capsys):
    with counting("comparing", None, True):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 3
    assert lines[0] == "comparing: 0 s so far"
    assert lines[-1] == "comparing: done in 0.1 s"


def test_the_promise_is_kept():
    assert progress.FIRST <= 5 and progress.EVERY < 30


def test_short_work_takes_one_line_and_no_line_where_none_is_wanted(capsys):
    with counting("reading", 1, True) as advance:
        advance(1)
    with counting("reading", 5, False) as advance:
        advance(3)
    with counting("looking", None, True):
        pass
    assert capsys.readouterr().err == "reading: 1 image in 0.0 s\n"


def test_what_is_broken_off_is_not_called_done(capsys):
    with pytest.raises(KeyboardInterrupt), counting("reading", 5, True) as advance:
        advance(3)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


def test_lines_of_file_names_are_told_as_they_are(capsys):
    with counting("reading [bold]x[/]", 2, True):
        pass
    assert "reading [bold]x[/]: 2 images" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [BrokenPipeError, ValueError])
def test_nobody_reading_does_not_stop_the_work(monkeypatch, fault):
    class Closed(io.StringIO):
        def write(self, text):
            raise fault

    monkeypatch.setattr(sys, "stderr", Closed())
    say("anybody there?")
    with counting("reading", 2, True) as advance:
        advance(2)


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with counting("reading", 4, True) as advance:
        advance(4, "fine")
    assert "4/4" in screen.getvalue() and "fine" in screen.getvalue()
    assert "images in" not in screen.getvalue()
