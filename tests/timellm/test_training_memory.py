import errno
import mmap
import multiprocessing
import time

import psutil
import pytest
import torch

from tests.waiting import wait_for
from timellm.machine import memory
from timellm.machine.memory import GIB, MemoryWatch, ResidentMemory, is_out_of_memory

CPU = torch.device("cpu")


def test_the_peak_outlives_the_memory():
    with MemoryWatch(CPU) as watch:
        before = watch.peak_gib
        with mmap.mmap(-1, GIB // 4) as block:  # pages of its own, whatever the process has freed before
            block.write(b"\1" * len(block))
            wait_for(lambda: watch.peak_gib - before > 0.2)
        time.sleep(0.3)
    assert 0.2 < watch.peak_gib - before < 0.5


def test_passing_the_limit_is_told_once():
    told = []
    with MemoryWatch(CPU, limit_gib=0.01, on_exceeded=told.append):
        wait_for(lambda: told)
        time.sleep(0.3)
    assert len(told) == 1
    assert told[0] > 0.01


def hold(mebibytes, is_held, may_end):
    block = b"\1" * (mebibytes * 2**20)
    is_held.set()
    may_end.wait()
    del block


def test_children_count_with_what_they_hold_beside_the_parent():
    context = multiprocessing.get_context("fork")
    is_held, may_end = context.Event(), context.Event()
    child = context.Process(target=hold, args=(256, is_held, may_end))
    child.start()
    try:
        is_held.wait()
        both, alone = ResidentMemory(psutil.Process()).read(), psutil.Process().memory_info().rss
        assert 0.2 < (both - alone) / GIB < 0.35
    finally:
        may_end.set()
        child.join()


def test_children_are_read_seldom(monkeypatch):
    readings = []

    def slow(process):
        readings.append(time.thread_time())
        while time.thread_time() < readings[-1] + 0.002:
            pass
        return []

    monkeypatch.setattr(memory, "descendants", slow)
    resident, began = ResidentMemory(psutil.Process()), time.perf_counter()
    while time.perf_counter() < began + 0.5:
        resident.read()
    assert len(readings) == 1


def test_memory_that_torch_does_not_get_on_a_cpu_is_out_of_memory():
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**52, dtype=torch.uint8)
    assert not isinstance(found.value, torch.OutOfMemoryError)
    assert is_out_of_memory(found.value)


@pytest.mark.parametrize("shape", [(2**31, 2**31), (2**40, 2**40), (2**62,)])
def test_sizes_that_no_memory_has_are_out_of_memory(shape):
    with pytest.raises(RuntimeError) as found:
        torch.empty(shape)
    assert is_out_of_memory(found.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("unable to mmap 512 bytes from file <weights>: Cannot allocate memory (12)"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_every_word_for_memory_that_ended_is_out_of_memory(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("shapes differ"), ValueError()])
def test_other_errors_are_not_out_of_memory(error):
    assert not is_out_of_memory(error)
