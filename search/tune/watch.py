"""Notices that Ray no longer answers, and ends the wait for it: Ray itself would wait for ever."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SECONDS_BETWEEN_LOOKS = 1.0
_SIGNAL = signal.SIGUSR2
"""Interrupts a wait in Ray's own code, which looks for signals and heeds KeyboardInterrupt alone."""


class GaveUp(KeyboardInterrupt):
    """Ray is not waited for any longer."""


class Watch:
    """While it is entered, by the main thread, `GaveUp` or KeyboardInterrupt ends what waits for a broken Ray.

    Args:
        problem: What is broken, in words; None while nothing is. Called in a thread of its own.
        is_busy: Whether something is being written that must not be cut short; it is called again later.
        seconds_between_looks: How often both are called.
    """

    def __init__(
        self,
        problem: Callable[[], str | None],
        is_busy: Callable[[], bool] = lambda: False,
        seconds_between_looks: float = SECONDS_BETWEEN_LOOKS,
    ) -> None:
        self.problem: str | None = None
        self._find, self._is_busy, self._seconds = problem, is_busy, seconds_between_looks
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="ray-watch", daemon=True)
        self._before: Any = None

    def __enter__(self) -> "Watch":
        """Begin to look."""
        self._before = signal.signal(_SIGNAL, self._give_up)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more, and give the signal back."""
        self._is_over.set()
        self._thread.join()
        signal.signal(_SIGNAL, self._before)

    def _look(self) -> None:
        main = threading.main_thread().ident
        while not self._is_over.wait(self._seconds):
            self.problem = self.problem or self._find()
            if self.problem is not None and main is not None and not self._is_over.is_set():
                signal.pthread_kill(main, _SIGNAL)  # again and again: cleaning up may wait for Ray, too

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if not self._is_over.is_set() and not self._is_busy():
            raise GaveUp(self.problem)
