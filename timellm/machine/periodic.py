"""Readings that are taken again and again during the training, and the processes that they concern."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import psutil


class Periodic:
    """Calls something at regular intervals from a thread of its own, while it is entered.

    Args:
        name: Name of the thread.
        seconds: Between two calls.
        action: Called each time; returns whether to go on.
    """

    def __init__(self, name: str, seconds: float, action: Callable[[], bool]) -> None:
        self._seconds, self._action = seconds, action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def __enter__(self) -> "Periodic":
        """Start calling."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop calling; a call that has begun ends first."""
        self._stop.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._stop.wait(self._seconds) and self._action():
            pass


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Children of a process and theirs.

    Linux keeps a list of each thread's children. Elsewhere every process of the machine is looked at, which takes
    milliseconds that the training would be short of.
    """
    if not Path(f"/proc/{process.pid}/task/{process.pid}/children").exists():
        return process.children(recursive=True)
    found = waiting = _children(process.pid)
    while waiting:
        waiting = [grandchild for child in waiting for grandchild in _children(child)]
        found = found + waiting
    return [child for pid in found if (child := _process(pid)) is not None]


def _children(pid: int) -> list[int]:
    """Process ids of children; none of a process or thread that has ended meanwhile."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
