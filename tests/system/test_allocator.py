"""Freed memory is reused within the block and handed back after it.

In processes of their own: what is in the heap already decides where a block is put.
"""

import ctypes
import json
import subprocess
import sys

import pytest

glibc = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
pytestmark = pytest.mark.skipif(not glibc, reason="the C library is not glibc")

BLOCK = 64 << 20
PREAMBLE = f"""
import ctypes, json, resource
from scrd.system.allocator import reused_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def faults_of_writing(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        block = libc.malloc({BLOCK})
        libc.memset(block, 1, {BLOCK})
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


found = {{}}
before = resident()
"""


def run(body):
    """What the body, in a fresh process, puts into ``found``."""
    code = PREAMBLE + body + "\nprint(json.dumps(found))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_large_block_is_mapped_once():
    found = run(
        """
found["outside"] = faults_of_writing(8)
with reused_memory():
    found["first"] = faults_of_writing(1)
    found["inside"] = faults_of_writing(8)
"""
    )
    assert found["outside"] > 6 * found["first"]  # what is to be avoided
    assert found["inside"] < found["first"]


def test_memory_goes_back_at_the_end_of_the_outer_block():
    found = run(
        """
with reused_memory():
    with reused_memory():
        faults_of_writing(1)
    found["inside"] = resident() - before
found["after"] = resident() - before
"""
    )
    assert found["inside"] > BLOCK / 2 > found["after"]


def test_memory_goes_back_after_an_error():
    found = run(
        """
try:
    with reused_memory():
        faults_of_writing(1)
        raise RuntimeError
except RuntimeError:
    found["after"] = resident() - before
found["again outside"] = faults_of_writing(8) > faults_of_writing(1) * 6
"""
    )
    assert found["after"] < BLOCK / 2
    assert found["again outside"]


def test_a_host_may_keep_its_allocator(monkeypatch):
    monkeypatch.setenv("SCRD_ALLOCATOR", "default")
    found = run(
        """
with reused_memory():
    found["first"] = faults_of_writing(1)
    found["inside"] = faults_of_writing(8)
"""
    )
    assert found["inside"] > 4 * found["first"] > 0
