"""The time of a search: what is left, what is kept for later, what the next trial will take."""

import statistics
from collections.abc import Callable

from search.decide.ledger import Ledger
from search.decide.spend.limits import Limits
from timellm.contract.columns import SAMPLER

_ENOUGH = 3
"""The sampler's trials from which on their length is what is expected of the next."""


class Budget:
    """Says whether something still fits.

    Args:
        limits: When the search ends.
        ledger: Rows with the length of each trial.
        clock: Unix time.
    """

    def __init__(self, limits: Limits, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._limits, self._ledger, self._clock = limits, ledger, clock
        self.planned_seconds: float | None = None

    def left(self) -> float | None:
        """Seconds that are left; None without a limit."""
        return None if self._limits.deadline is None else self._limits.deadline - self._clock()

    def fits(self, seconds: float) -> bool:
        """Whether something of a predicted length fits into what is left."""
        left = self.left()
        return left is None or seconds <= left

    def has_time(self, reserve: float = 0.0) -> bool:
        """Whether at least half of the next trial fits.

        Args:
            reserve: Seconds that are kept for later.
        """
        left = self.left()
        return left is None or left - reserve > (self.expected_seconds() or 0.0) / 2

    def expected_seconds(self) -> float | None:
        """Length of the next trial: the median of the sampler's complete ones, or what the plan expects."""
        complete = self._ledger.complete()
        own = [row["total_seconds"] for row in complete if row["source"] == SAMPLER and row["total_seconds"]]
        every = [row["total_seconds"] for row in complete if row["total_seconds"]]
        chosen = own if len(own) >= _ENOUGH else every
        return statistics.median(chosen) if chosen else self.planned_seconds

    def longest_seconds(self) -> float:
        """Length of the longest trial that is known, or of the whole budget before any is."""
        lengths = [row["total_seconds"] for row in self._ledger.complete() if row["total_seconds"]]
        return max(lengths, default=self.planned_seconds or self._limits.budget_seconds or 0.0)
