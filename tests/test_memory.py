"""Freed memory is reused within the block and handed back after it."""

import ctypes
import sys

import pytest
import torch

from scrd.memory import reused_memory

glibc = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
pytestmark = pytest.mark.skipif(not glibc, reason="the C library is not glibc")

BLOCK = 64 << 20
PAGES = BLOCK // 4096


def faults_of_writing(times):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(BLOCK // 4).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def test_a_large_block_is_mapped_once():
    assert faults_of_writing(8) > 7 * PAGES  # what is to be avoided
    with reused_memory():
        faults_of_writing(8)  # by then the block has found its place
        assert faults_of_writing(8) < 2 * PAGES


def test_memory_goes_back_at_the_end_of_the_outer_block():
    before = resident()
    with reused_memory():
        with reused_memory():
            faults_of_writing(8)  # by then the block has found its place
        assert faults_of_writing(8) < 2 * PAGES
        assert resident() - before > BLOCK / 2
    assert resident() - before < BLOCK / 2


def test_memory_goes_back_after_an_error():
    before = resident()
    with pytest.raises(RuntimeError), reused_memory():
        faults_of_writing(8)
        raise RuntimeError
    assert resident() - before < BLOCK / 2
