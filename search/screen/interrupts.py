"""Ctrl-C: the first ends the search in good order, the second at once."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

_FIRST = "\nEnding in good order: the running trial stops at its next step. Press Ctrl-C again to stop now.\n"
_SECOND = "\nStopping now.\n"


class Interrupts:
    """While it is entered, SIGINT, SIGTERM and SIGHUP are counted and told instead of ending the process.

    The third one ends it as usual.
    """

    def __init__(self) -> None:
        self.count = 0
        self._is_held = False
        self._action: Callable[[bool], None] = lambda now: None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        """Take the signals over."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def tell(self, action: Callable[[bool], None]) -> None:
        """Tell an action of every signal from now on, and at once if one has come already.

        Args:
            action: Called with whether the search must end at once instead of in good order.
        """
        self._action = action
        if self.count:
            action(self.count > 1)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While the state of a search is written, no signal ends the process; those that come are counted."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 2 and not self._is_held:
            raise KeyboardInterrupt
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, (_FIRST if self.count == 1 else _SECOND).encode())
        self._action(self.count == 2)
