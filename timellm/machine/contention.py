"""Notices other load on the CPU and the GPUs while a worker is timed: its clock cannot be trusted then."""

import os
import resource
import time
from collections.abc import Sequence

import psutil

from timellm.contract.columns import CLEAN, CONTENDED
from timellm.machine.cores import allowed_cores, usable_cores
from timellm.machine.gpu_watch import GpuWatch
from timellm.machine.periodic import descendants

TOLERATED_SHARE = 0.1
"""Share of the cores, or of a GPU's time, that others may use while a trial still counts as clean."""


class LoadWatch:
    """Watches what others do to the CPU and the GPUs of one worker, from its start or from that of its timed part.

    Args:
        gpus: Index or UUID of each GPU that the worker computes on.
        spare_cores: Cores that the worker does not use, so that others may.
        search: Process id of the search that started Ray for it; None if somebody else did.
        parent: Process id of the worker's parent, as `CpuWatch` takes it.
    """

    def __init__(
        self,
        gpus: Sequence[str] = (),
        spare_cores: int = 0,
        search: int | None = None,
        parent: int | None = None,
    ) -> None:
        self._cpu, self._gpu = CpuWatch(spare_cores, search, parent), GpuWatch(gpus)

    def begin(self, pid: int) -> None:
        """Forget what was before: the timed part of the worker with this process id begins."""
        self._cpu.begin(pid)
        self._gpu.begin()

    def look(self, pid: int) -> None:
        """Call it often while the worker runs: a GPU reports only its last moments."""
        self._gpu.look(pid)

    def quality(self, pid: int) -> str:
        """clean, or contended; while the worker runs or once it has been waited for."""
        share = max(self._cpu.other_share(pid), self._gpu.other_share())
        return CONTENDED if share > TOLERATED_SHARE else CLEAN


class CpuWatch:
    """Compares what the cores did with what one worker and its children used.

    Args:
        spare_cores: Cores that the worker does not use: as much load of others does not disturb it.
        search: Process id of the search that started Ray. What Ray does to keep itself going, the same for every
            trial, then counts as the worker's own: it is a tenth of one core.
        parent: Process id of the worker's parent, to which goes what the worker used once it has ended: of the server
            that forks workers, or None for this process.
    """

    def __init__(self, spare_cores: int = 0, search: int | None = None, parent: int | None = None) -> None:
        self._spare, self._search, self._parent = spare_cores, search, parent
        self._began, self._busy, self._own = time.monotonic(), busy_seconds(), children_seconds(parent)
        self._upkeep = self._upkeep_now()

    def begin(self, pid: int) -> None:
        """Count from now on."""
        self._began, self._busy, self._own = time.monotonic(), busy_seconds(), own_seconds(pid, self._parent)
        self._upkeep = self._upkeep_now()

    def other_share(self, pid: int) -> float:
        """Share of the cores that others used beyond the spare ones, from 0."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        upkeep = sum(now - self._upkeep.get(process, 0.0) for process, now in self._upkeep_now().items())
        others = (busy_seconds() - self._busy) - (own_seconds(pid, self._parent) - self._own) - upkeep
        beyond_quota = len(allowed_cores()) - usable_cores()
        return max(0.0, others / seconds - self._spare - beyond_quota) / usable_cores()

    def _upkeep_now(self) -> dict[int, float]:
        return {} if self._search is None else upkeep_seconds(self._search)


def busy_seconds() -> float:
    """CPU time that those cores have spent on anything, other virtual machines included, seconds."""
    every = psutil.cpu_times(percpu=True)
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(every[core], name, 0.0) for core in allowed_cores() for name in names)


def own_seconds(pid: int, parent: int | None = None) -> float:
    """CPU time of a worker and its children, those of its parent's earlier children included, seconds.

    It does not jump when the worker ends: what a process used moves to its parent when it has been waited for.

    Args:
        pid: Process id of the worker.
        parent: That of its parent; None for this process.
    """
    return children_seconds(parent) + _tree_seconds(pid)


def upkeep_seconds(search: int) -> dict[int, float]:
    """CPU time of each process of Ray that a search has started, seconds by process id.

    They are the search's descendants in its own session; servers and workers lead sessions of their own.

    Args:
        search: Process id of the search; there are none once it is gone.
    """
    found = {}
    try:
        session = os.getsid(search)
        every = descendants(psutil.Process(search))
    except (OSError, psutil.Error):
        return {}
    for process in every:
        try:
            if os.getsid(process.pid) == session:
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
        except (OSError, psutil.Error):
            continue
    return found


def _tree_seconds(pid: int) -> float:
    """CPU time of a process and its children, including those they have waited for; 0 once it is gone."""
    try:
        root = psutil.Process(pid)
        tree = [root, *descendants(root)]
    except psutil.Error:
        return 0.0
    total = 0.0
    for process in tree:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def children_seconds(parent: int | None = None) -> float:
    """CPU time of children that have been waited for, and of theirs, seconds.

    Args:
        parent: Process id of their parent, 0 is returned once it is gone; None for this process.
    """
    if parent is None:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime
    try:
        times = psutil.Process(parent).cpu_times()
    except psutil.Error:
        return 0.0
    return times.children_user + times.children_system
