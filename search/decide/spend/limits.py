"""When a search ends."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What bounds a search.

    Attributes:
        deadline: Unix time after which nothing starts; None for never.
        num_trials: Rows of the table at most, confirmations not counted; None for no limit.
        budget_seconds: The whole time budget; None for none.
    """

    deadline: float | None = None
    num_trials: int | None = None
    budget_seconds: float | None = None
