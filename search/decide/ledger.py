"""The rows of a search: each is made from what its worker measured, and the table is written after every one."""

from collections.abc import Mapping, Sequence
from typing import Any

from results.analysis.pareto import add_scores
from results.analysis.table import load_trials, rows_of, write_trials
from search.decide.propose.study import Proposal
from spaces.knobs import KNOBS
from timellm.contract.columns import BY_NAME, CLEAN, CONFIRM, OBJECTIVES, State, knob_column
from timellm.contract.config import RunConfig
from timellm.contract.layout import RunFolder

Row = dict[str, Any]


class Ledger:
    """Keeps the trials table of a run folder.

    Args:
        folder: The run folder.
        time_weight: Weight of log time in the joint score.
        rows: Rows of an earlier session.
    """

    def __init__(self, folder: RunFolder, time_weight: float, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self._folder, self._time_weight = folder, time_weight
        self.rows: list[Row] = [dict(row) for row in rows]

    def record(self, proposal: Proposal, config: RunConfig, outcome: Mapping[str, Any]) -> Row:
        """Add the row of an ended trial, in place of an interrupted one of that name, and write the table.

        Args:
            proposal: What was tried.
            config: The run's settings.
            outcome: Fields of the worker's result.

        Returns:
            The row, scores included.

        Raises:
            OSError: If the disk refuses; the row is kept and written with the next one.
        """
        row = make_row(proposal, config, outcome)
        self.rows = [*(old for old in self.rows if old["trial_id"] != row["trial_id"]), row]
        self.rows = add_scores(self.rows, self._time_weight)
        self.write()
        return next(new for new in self.rows if new["trial_id"] == row["trial_id"])

    def amend(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change columns of rows and write the table.

        Args:
            changes: New values by column, by trial.

        Raises:
            OSError: If the disk refuses.
        """
        self.rows = [{**row, **changes.get(row["trial_id"], {})} for row in self.rows]
        self.write()

    def write(self) -> None:
        """Write the table.

        Raises:
            OSError: If the disk refuses.
        """
        write_trials(self._folder, self.rows)

    def complete(self) -> list[Row]:
        """The complete rows."""
        return [row for row in self.rows if row["state"] == State.COMPLETE]

    def best(self, count: int) -> list[Row]:
        """The complete rows to confirm: the front first, then by joint score; no confirmations, no baseline twice."""
        rows = [row for row in self.complete() if row["source"] != CONFIRM]
        rows.sort(key=lambda row: (not row["is_pareto"], row["joint_score"] if row["joint_score"] is not None else 0.0))
        return rows[:count]

    @classmethod
    def reopen(cls, folder: RunFolder, time_weight: float) -> "Ledger":
        """The ledger of a run folder that holds a table already."""
        return cls(folder, time_weight, rows_of(load_trials(folder.path)))


def make_row(proposal: Proposal, config: RunConfig, outcome: Mapping[str, Any]) -> Row:
    """A row of the trials table, without scores.

    A complete run that lacks an objective, as after a clock that went wrong, counts as failed.
    """
    settings = config.to_dict()
    knobs = [*KNOBS, *(name for name in proposal.settings if name not in KNOBS), "device"]
    row: Row = {name: outcome.get(name) for name in BY_NAME}
    row |= {"trial_id": proposal.trial_id, "source": proposal.source, "seed": config.seed}
    row |= {knob_column(name): settings[name] for name in knobs}
    missing = [name for name in OBJECTIVES if row[name] is None]
    if row["state"] == State.COMPLETE and missing:
        row["state"] = str(State.FAILED)
        row["error"] = f"The run ended without {' and '.join(missing)}. See run.log in its folder."
    if config.train_samples is not None and row["state"] == State.COMPLETE:
        row["train_samples"] = config.train_samples
    row["timing_quality"] = row["timing_quality"] or CLEAN
    return row
