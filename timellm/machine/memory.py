"""Memory of a run: its peak, and a limit that ends it before the machine does."""

import errno
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from timellm.machine.periodic import Periodic, descendants

GIB = 2**30
SECONDS_BETWEEN_READINGS = 0.1
REST_PER_READING = 500
"""Seconds until the children's memory is read again, for each second of processor time that reading it took."""

_inherited_file_bytes = 0
"""Pages of files that a forked process's parent had in memory; see `count_as_started`."""
_NO_MEMORY = (
    "defaultcpuallocator", "cannot allocate memory", "can't allocate memory", "std::bad_alloc",
    "storage size calculation overflowed", "integer multiplication overflow", "invalid buffer size",
)  # fmt: skip
"""What torch and the C library say of memory that ended on a CPU, or of sizes that no memory has, where torch raises a
plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU or on a GPU by torch's own allocator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _NO_MEMORY)


class MemoryWatch:
    """Reads the memory of this process and its loader workers in a thread of its own.

    Args:
        device: On a GPU, the peak is what torch allocated there; on a CPU, what is resident.
        limit_gib: Upper limit; None for none.
        on_exceeded: Called once, from the thread, with the memory in GiB that was read.
    """

    def __init__(
        self, device: torch.device, limit_gib: float | None = None, on_exceeded: Callable[[float], None] | None = None
    ) -> None:
        self._device, self._limit_gib, self._on_exceeded = device, limit_gib, on_exceeded
        self._memory = ResidentMemory(psutil.Process())
        self._peak = 0.0
        self._periodic = Periodic("memory-watch", SECONDS_BETWEEN_READINGS, self._watch)

    def __enter__(self) -> "MemoryWatch":
        """Start reading."""
        if self._device.type == "cuda":
            torch.cuda.init()  # before CUDA is initialised there are no figures to reset
            torch.cuda.reset_peak_memory_stats(self._device)
        self._periodic.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop reading."""
        self._periodic.__exit__(*exception)

    @property
    def peak_gib(self) -> float:
        """Highest reading so far, GiB."""
        self._peak = max(self._peak, self._read_gib())
        return self._peak

    def _watch(self) -> bool:
        peak = self.peak_gib
        if self._limit_gib is not None and peak > self._limit_gib and self._on_exceeded:
            self._on_exceeded(peak)
            return False
        return True

    def _read_gib(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / GIB
        return self._memory.read() / GIB


class ResidentMemory:
    """Resident memory of a process and what its children hold beside it: a forked child shares most of its pages.

    A child's own share takes a walk over all its pages, milliseconds in which it and the training stand still:
    ten times a second, two loader workers slowed the training down by a fifth. So what the children hold is read
    seldom enough to cost a fraction of a percent, and the last reading counts until the next.

    Args:
        process: The parent.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._children = 0
        self._next_reading = 0.0

    def read(self) -> int:
        """Bytes; the children's share may be some seconds old."""
        if time.perf_counter() >= self._next_reading:
            began = time.thread_time()
            self._children = sum(map(_unshared_bytes, descendants(self._process)))
            self._next_reading = time.perf_counter() + REST_PER_READING * (time.thread_time() - began)
        not_mapped_yet = max(0, _inherited_file_bytes - file_bytes()) if _inherited_file_bytes else 0
        return self._process.memory_info().rss + not_mapped_yet + self._children


def count_as_started(file_bytes: int) -> None:
    """Let this process, a forked one, count memory as one that was started would.

    A fork maps a library's pages when it touches them; a process that has imported the library has them already.

    Args:
        file_bytes: Pages of files that were resident where the libraries were imported, from `file_bytes`.
    """
    global _inherited_file_bytes
    _inherited_file_bytes = file_bytes


def file_bytes(pid: int | None = None) -> int:
    """Resident pages of a process (None: this one) that belong to files, bytes; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))
    except (OSError, StopIteration):
        return 0


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and what its children hold beside it, as it is now."""
    return ResidentMemory(process).read()


def _unshared_bytes(child: psutil.Process) -> int:
    try:
        return child.memory_full_info().uss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
