"""Confirmations: the best configurations and the baseline trained again with other seeds."""

from collections.abc import Callable

from search.decide.ledger import Ledger, Row
from search.decide.propose.study import Proposal, settings_of
from spaces import Space
from timellm.contract.columns import BASELINE, CONFIRM, State

REPEATS = 2
"""Other seeds that each confirmed configuration is trained with."""


class Confirmation:
    """Hands out the confirmations of a search, the baseline's between them.

    Configurations and seeds that the table holds already are not run again; an interrupted one is, under its name.

    Args:
        space: The resolved space.
        ledger: The table.
        count: Configurations to confirm; 0 for none.
        seed: Seed of the search; the next ones are used.
        new_trial_id: Names a trial.
    """

    def __init__(self, space: Space, ledger: Ledger, count: int, seed: int, new_trial_id: Callable[[], str]) -> None:
        self._space, self._ledger, self._count, self._seed = space, ledger, count, seed
        self._new_trial_id = new_trial_id
        self._queue: list[tuple[Row, int]] | None = None

    @property
    def trials(self) -> int:
        """Trials that all confirmations are, the baseline's included."""
        return (self._count + 1) * REPEATS if self._count else 0

    def next(self) -> Proposal | None:
        """The next confirmation; None if none is left."""
        if self._queue is None:
            self._queue = self._plan()
        while self._queue:
            row, seed = self._queue.pop(0)
            settings = settings_of(row, self._space)
            same = [old for old in self._ledger.rows if self._is_repeat(old, row, seed)]
            if any(old["state"] != State.INTERRUPTED for old in same):
                continue
            trial_id = same[0]["trial_id"] if same else self._new_trial_id()
            return Proposal(trial_id=trial_id, source=CONFIRM, settings=settings, seed=seed)
        return None

    def _plan(self) -> list[tuple[Row, int]]:
        best = self._ledger.best(self._count)
        baseline = [row for row in self._ledger.complete() if row["source"] == BASELINE]
        known = {row["trial_id"] for row in best}
        rows = [*(row for row in baseline if row["trial_id"] not in known and best), *best]
        return [(row, self._seed + repeat) for repeat in range(1, REPEATS + 1) for row in rows]

    def _is_repeat(self, old: Row, row: Row, seed: int) -> bool:
        return old["seed"] == seed and settings_of(old, self._space) == settings_of(row, self._space)
