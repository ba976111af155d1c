"""One trial under two clocks: what its timing and its error training gave, and the row they make together."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from results.analysis.errors import ErrorTraining
from search.decide.propose.study import Proposal
from timellm.contract.columns import BY_NAME, State
from timellm.contract.config import RunConfig
from timellm.contract.layout import TrialFolder
from timellm.contract.words import utc

Outcome = Mapping[str, Any]

TIMED_ONLY = "Timed only: the time budget did not allow the training of its error. Raise --time_budget, then --resume."

_OF_THE_ERROR = ("val_mse", "val_mae", "test_mse", "test_mae", "epochs", "train_samples", "val_samples")
_OF_THE_ROW = (
    "trial_id",
    "state",
    "source",
    "error",
    "is_pareto",
    "joint_score",
    "speedup_vs_baseline",
    "seed",
    "started_at",
    "total_seconds",
    "error_from",
    "time_from",
    "error_seeds",
    "val_mse_low",
    "val_mse_high",
)
TIME_COLUMNS = tuple(name for name in BY_NAME if name not in (*_OF_THE_ERROR, *_OF_THE_ROW))
"""What a timing measures: times, memory, parameters, what the device did."""


@dataclass
class Trial:
    """A proposal on its way to a row.

    Attributes:
        proposal: What is tried.
        config: Its settings at the search's fidelity.
        folder: Its folder.
        timing: What its timing measured; None before.
        time_from: Trial whose timing it is.
        seconds: Wall clock that the trial itself has taken.
        first_row: Its row after a first timing, where one run measures both and it is timed again.
        started_at: Unix time.
    """

    proposal: Proposal
    config: RunConfig
    folder: TrialFolder
    timing: Outcome | None = None
    time_from: str | None = None
    seconds: float = 0.0
    first_row: Mapping[str, Any] | None = None
    started_at: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.proposal.trial_id

    def untimed(self, outcome: Outcome) -> dict[str, Any]:
        """The outcome of a trial whose timing did not come to its end: no error is filled in."""
        values = {**outcome, **dict.fromkeys(("val_mse", "val_mae"))}
        return {**values, "time_from": self.name, "total_seconds": round(self.seconds, 3)}

    def with_error(self, training: ErrorTraining) -> dict[str, Any]:
        """The outcome of a trial that has both its time and an error, its own or that of equal numbers."""
        error = None
        if training.state != State.COMPLETE:
            error = (
                f"Its numbers diverged in the training of {training.trial_id}. Use another precision or learning rate."
            )
        return self._joined(
            state=training.state,
            error=error,
            val_mse=training.val_mse if training.state == State.COMPLETE else None,
            val_mae=training.val_mae if training.state == State.COMPLETE else None,
            val_samples=training.val_samples,
            error_from=training.trial_id,
        )

    def after_error(
        self, training: ErrorTraining | None, state: State, outcome: Outcome, stop_reason: str | None
    ) -> dict[str, Any]:
        """The outcome of a trial whose own error training has ended.

        Args:
            training: The line of the error book; None where the training was ended from outside.
            state: How it ended.
            outcome: The worker's result.
            stop_reason: Why the search was ended; None while it runs.
        """
        if training is not None and state in (State.COMPLETE, State.DIVERGED):
            return self.with_error(training)
        if state == State.STOPPED_EARLY:
            return self.without_error(state, str(outcome.get("error")), outcome)
        if state == State.INTERRUPTED and stop_reason:
            return self.without_error(state, stop_reason)
        if state == State.INTERRUPTED:
            return self.without_error(State.STOPPED_EARLY, TIMED_ONLY)
        return self.without_error(State.FAILED, f"The training of its error failed: {outcome.get('error')}")

    def without_error(self, state: State, reason: str, outcome: Outcome | None = None) -> dict[str, Any]:
        """The outcome of a trial that only has a time.

        Args:
            state: How it ended.
            reason: Why there is no error, one line.
            outcome: What an unfinished error training left behind.
        """
        known = outcome or {}
        names = ("val_mse", "val_mae", "train_samples", "val_samples")
        found = {name: known.get(name) for name in names if known.get("samples")}
        return self._joined(state=state, error=reason, **found)

    def _joined(self, **of_the_error: Any) -> dict[str, Any]:
        timed = self.timing or {}
        return {
            **{name: timed.get(name) for name in TIME_COLUMNS},
            "started_at": utc(self.started_at),
            "seed": self.config.seed,
            "is_projected": self.config.train_samples is not None,
            "train_samples": self.config.train_samples,
            "val_samples": self.config.val_samples,
            "total_seconds": round(self.seconds, 3),
            "time_from": self.time_from,
            **of_the_error,
        }
