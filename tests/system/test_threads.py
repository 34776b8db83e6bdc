"""How many threads compute: what is asked for, what the machine allows, what is left alone."""

import os
import subprocess
import sys

import pytest
import torch

from scrd.system import threads
from scrd.system.threads import thread_count, use_threads, wait_politely

NAMES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No word of the user in the environment; what a test sets is undone."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "_allowed", lambda: 8)
    monkeypatch.setattr(threads, "_granted", lambda: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_what_is_asked_for_holds_here_and_in_processes_that_are_started():
    use_threads(3)
    assert torch.get_num_threads() == thread_count() == 3
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_the_option_wins_over_the_environment_and_that_over_the_default(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setattr(threads, "_granted", lambda: 2)
    use_threads()
    assert (thread_count(), os.environ["OMP_NUM_THREADS"]) == (5, "5")
    use_threads(3)
    assert (thread_count(), torch.get_num_threads()) == (3, 3)


def test_the_default_leaves_the_library_its_choice():
    before = torch.get_num_threads()
    use_threads()
    assert torch.get_num_threads() == before
    assert "OMP_NUM_THREADS" not in os.environ
    assert thread_count() == 8


def test_no_more_threads_than_a_container_is_granted(monkeypatch):
    monkeypatch.setattr(threads, "_granted", lambda: 2)
    use_threads()
    assert torch.get_num_threads() == thread_count() == 2


@pytest.mark.parametrize(("text", "count"), [("4,2", 4), ("none", 8), ("0", 8), (" 2 ", 2)])
def test_odd_values_of_the_environment(monkeypatch, text, count):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert thread_count() == count


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_control_group(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert threads._quota(tmp_path) == cores


def test_waiting_threads_sleep_unless_the_user_chose(monkeypatch):
    wait_politely()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_politely()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    wait_politely()
    assert "OMP_WAIT_POLICY" not in os.environ


def test_the_command_decides_before_anything_heavy_is_loaded():
    program = (
        "import os, sys; sys.argv = ['scrd', '--version']\n"
        "from scrd.cli import run\n"
        "early = {'torch', 'scipy', 'sklearn', 'onnxruntime'} & set(sys.modules)\n"
        "try: run()\n"
        "finally: print(early, os.environ['OMP_WAIT_POLICY'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "set() PASSIVE"
