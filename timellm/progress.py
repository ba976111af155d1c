"""Progress of long work for people, on stderr: a bar on a terminal, a quiet line now and then in a file or a pipe."""

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from timellm.contract.words import duration_words

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_PICTURES = 0.5
"""On a terminal: drawing takes milliseconds that a training on the same cores misses."""
_DUMB = ("", "dumb", "unknown")
"""Values of TERM of terminals without control codes."""


class ProgressBar:
    """Shows how far some work is and how long the rest will take.

    On a terminal it is a bar that is drawn when `show` is called, by no thread of its own, and that leaves nothing
    behind; what is printed meanwhile appears above it. Elsewhere it is plain lines without control codes.

    Args:
        total: Parts of the work.
        quiet_seconds: Nothing is shown before.
        seconds_between_lines: Where there is no terminal, a line comes at most this often.
    """

    def __init__(self, total: int, *, quiet_seconds: float = 0.0, seconds_between_lines: float = 30.0) -> None:
        self._total = total
        self._bar = _bar(total) if _is_terminal() else None
        self._seconds_between = seconds_between_lines if self._bar is None else SECONDS_BETWEEN_PICTURES
        self._started = time.monotonic()
        self._next = self._started + quiet_seconds

    def show(self, done: int, words: str) -> None:
        """Show where the work stands, unless that was shown a moment ago.

        Args:
            done: Parts that are done, at least 1.
            words: What is done, such as `step 12/300`; the time left is added.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._seconds_between
        left = (now - self._started) / done * (self._total - done)
        text = f"{words}, {duration_words(left)} left"
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.start()
            self._bar.update(self._bar.task_ids[0], completed=done, description=text, refresh=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def _is_terminal() -> bool:
    """Whether stderr can show a bar, whatever FORCE_COLOR asks for."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in _DUMB


def _bar(total: int) -> "Progress":
    """A bar on stderr. Standard output is led around it only where it shows on a terminal too."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(bar_width=24),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )
    bar.add_task("", total=total)
    return bar
