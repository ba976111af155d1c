"""Which cores the tests run on.

Each process of tests (`pytest -n auto`) has cores of its own. Two trainings with two threads each on two cores would
take several times as long as one after the other, because the threads of a product wait for each other by spinning.
"""

import contextlib
import os
from collections.abc import Iterator

from timellm.machine.cores import allowed_cores, usable_cores

_ALL = allowed_cores()
CORES = usable_cores()
"""Cores of this machine, whatever share of them this process takes."""


def take_a_share_of_the_cores() -> None:
    """Keep this process of tests, and all that it starts, to cores of its own; each test has one thread."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share(int(os.environ["PYTEST_XDIST_WORKER"][2:]), _workers()))


def share(number: int, workers: int) -> list[int]:
    """Cores of one of several processes of tests."""
    size = max(1, CORES // workers)
    return [_ALL[(number * size + more) % len(_ALL)] for more in range(size)]


@contextlib.contextmanager
def give_all_cores() -> Iterator[None]:
    """All cores, while it is entered."""
    before = allowed_cores()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _ALL)
    try:
        yield
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, before)


def _workers() -> int:
    return int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
