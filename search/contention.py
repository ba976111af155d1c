"""Notices other load on the CPU while a worker runs: its clock is then not to be trusted."""

import os
import resource
import time

import psutil

TOLERATED_SHARE = 0.1
"""Share of the cores that others may use while a trial still counts as clean."""


class CpuWatch:
    """Compares what the cores did with what one child process and its children used."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), _children_seconds()

    def other_share(self) -> float:
        """Share of the cores that others used, from 0; to be asked once the child has been waited for."""
        seconds = time.monotonic() - self._began
        others = (_busy_seconds() - self._busy) - (_children_seconds() - self._own)
        return max(0.0, others / max(seconds * len(_cores()), 1e-9))

    def quality(self) -> str:
        """clean, or contended."""
        return "contended" if self.other_share() > TOLERATED_SHARE else "clean"


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _busy_seconds() -> float:
    """CPU time that those cores have spent on anything, other virtual machines included, seconds."""
    every = psutil.cpu_times(percpu=True)
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(every[core], name, 0.0) for core in _cores() for name in names)


def _children_seconds() -> float:
    """CPU time of children that have been waited for, and of theirs, seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
