"""How many CPU cores and how much memory this process may use, and which limits were passed; every room asks here."""

import math
import os
from pathlib import Path
from typing import Annotated

import psutil

from timellm.contract.declarations import AtLeast, AtMost, Shown

MOST_THREADS = 1024
"""Threads of a process at most: beyond what any machine has, OpenMP ends the process that asks for them."""
Threads = Annotated[int | None, AtLeast(1), AtMost(MOST_THREADS), Shown("N", default="all cores")]
"""The option of a command that trains or forecasts."""

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of this process's control group."""


def allowed_cores() -> list[int]:
    """Numbers of the cores that this process may run on: its affinity."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Cores whose time this process gets: those it may run on, or fewer where its control group grants less."""
    cores, quota = len(allowed_cores()), _quota()
    return cores if quota is None else min(cores, max(1, math.floor(quota)))


def usable_memory_gib() -> float:
    """Main memory, GiB, or the limit of this process's control group where that is lower."""
    total = psutil.virtual_memory().total
    for path in (CONTROL_GROUP / "memory.max", CONTROL_GROUP / "memory" / "memory.limit_in_bytes"):
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):
            continue
    return total / 2**30


def oom_kills() -> int:
    """How often the kernel has killed a process for lack of memory, in this control group or else on the machine."""
    for path in (CONTROL_GROUP / "memory.events", Path("/proc/vmstat")):
        try:
            words = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
            return int(words["oom_kill"])
        except (OSError, KeyError, ValueError):
            continue
    return 0


def _quota() -> float | None:
    """Cores' worth of time that the control group grants, of either version; None for no limit."""
    try:
        quota, period = (CONTROL_GROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        granted = int((CONTROL_GROUP / "cpu" / "cpu.cfs_quota_us").read_text())
        return granted / int((CONTROL_GROUP / "cpu" / "cpu.cfs_period_us").read_text()) if granted > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
