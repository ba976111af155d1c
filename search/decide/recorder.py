"""Writes the results of a search: rows, errors, and what the study is told."""

from collections.abc import Callable, Mapping
from typing import Any

from results.analysis.errors import ErrorTraining
from search.decide.clocks.errors import ErrorBook
from search.decide.clocks.trial import Trial
from search.decide.ledger import Ledger, Row
from search.decide.listener import Listener
from search.decide.propose.study import SearchStudy
from timellm.contract.columns import VAL_MSE
from timellm.contract.config import RunConfig


class Recorder:
    """Keeps table, error book and study in step; every row is written before the study is told.

    Args:
        ledger: The table.
        book: The errors.
        study: What the sampler learns from.
        listener: Hears of every row.
        config_of: The settings of a row at the search's fidelity.
    """

    def __init__(
        self,
        ledger: Ledger,
        book: ErrorBook,
        study: SearchStudy,
        listener: Listener,
        config_of: Callable[[Row], RunConfig],
    ) -> None:
        self._ledger, self._book, self._study, self._listener = ledger, book, study, listener
        self._config_of = config_of

    def finish(self, trial: Trial, outcome: Mapping[str, Any]) -> Row:
        """Write a trial's row and tell the study."""
        row = self.write(trial, outcome)
        self.tell(trial, row)
        return row

    def write(self, trial: Trial, outcome: Mapping[str, Any]) -> Row:
        """Write a trial's row."""
        noise = self._book.columns(trial.config) if outcome.get("error_from") else {}
        return self._ledger.record(trial.proposal, trial.config, {**outcome, **noise})

    def tell(self, trial: Trial, row: Row) -> None:
        """Tell the study how a trial ended, and the listener."""
        self._study.finish(trial.name, row)
        self._listener.row(row, self._ledger.rows)

    def add_error(self, trial_id: str, config: RunConfig, outcome: Mapping[str, Any], seconds: float) -> ErrorTraining:
        """Write an error training; what it says of the noise goes into every row that has an error."""
        training = self._book.add(trial_id, config, outcome, seconds)
        changes = {
            row["trial_id"]: self._book.columns(self._config_of(row))
            for row in self._ledger.rows
            if row.get(VAL_MSE) is not None and row.get("error_from")
        }
        if changes:
            self._ledger.amend(changes)
        return training
