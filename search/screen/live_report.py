"""The report while a search runs: rebuilt between trials, so that no clock of a training hears of it."""

import time
import warnings
from collections.abc import Callable

from results.document.page import build_report
from timellm.contract.errors import error_words
from timellm.contract.layout import RunFolder

SHARE, HEAD_START = 0.02, 1.0
"""Largest share of a search's time for reports while it runs; seconds in addition, for the first reports."""


class LiveReport:
    """Keeps report.html and recommended/ of a running search up to date.

    It is rebuilt after a row was written, in the process that hands out trials: if one trial runs at a time, none is
    trained meanwhile. A report takes longer as the table grows, so all of them together have a share of the search's
    time, and a report that would pass it is left out.

    Args:
        folder: The run folder.
        say: Prints a sentence.
        build: Writes the report.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        folder: RunFolder,
        say: Callable[[str], None],
        build: Callable[[RunFolder], object] = build_report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._say, self._build, self._clock = folder, say, build, clock
        self._began, self._spent = clock(), 0.0
        self._problem: str | None = None

    def refresh(self) -> None:
        """Rebuild the report if there is time for it; a problem is reported once and never ends a search."""
        start = self._clock()
        if self._spent > HEAD_START + SHARE * (start - self._began):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._build(self._folder)
            self._problem = None
        except Exception as error:  # any error: the trials are worth more than a picture of them
            self._warn(error_words(error))
        self._spent += self._clock() - start

    def _warn(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._say(f"Warning: the report could not be refreshed ({problem}). The search goes on without it.")
