"""Where a search stands: its plan, what is running, what follows, what is known."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.decide.clocks.errors import ErrorBook
from search.decide.clocks.times import TimeBook
from search.decide.clocks.trial import Trial
from search.decide.propose.study import Proposal, settings_of
from search.decide.runs import Kind, Run
from search.decide.spend.plan import Plan
from spaces import Space
from timellm.contract.config import RunConfig
from timellm.contract.numbers import numbers_key


@dataclass(kw_only=True)
class Standing:
    """What a loop keeps between two runs.

    Attributes:
        plan: The plan; None before it is made.
        has_controls: Whether the controls have been measured, or are being.
        book: Errors that are known.
        times: Timings that are known.
        running: Runs that are out, by the folder of their job.
        queue: What follows for trials one of whose runs has ended.
        waiting: Trials whose error another trial's run is training.
        stop_reason: Why the search was ended before its end; None while it runs.
        refusal: Why nothing of this search can be trained; None unless the baseline was refused.
        run_config: The whole training run of a proposal.
        space: The resolved space.
    """

    plan: Plan | None
    has_controls: bool
    book: ErrorBook
    run_config: Callable[[Proposal], RunConfig]
    space: Space
    times: TimeBook = field(default_factory=TimeBook)
    running: dict[str, Run] = field(default_factory=dict)
    queue: deque[tuple[Kind, Trial]] = field(default_factory=deque)
    waiting: list[Trial] = field(default_factory=list)
    stop_reason: str | None = None
    refusal: str | None = None

    @property
    def is_together(self) -> bool:
        """Whether one run measures both time and error, as the plan says."""
        return self.plan is not None and self.plan.clocks == "together"

    def open_trials(self) -> list[Trial]:
        """Trials that have begun and not ended."""
        running = [run.trial for run in self.running.values() if run.trial is not None]
        return [*running, *(trial for _, trial in self.queue), *self.waiting]

    def is_trained(self, config: RunConfig) -> bool:
        """Whether the error of a run at the search's fidelity is known or being trained."""
        if self.book.known(config) is not None:
            return True
        key = numbers_key(config.to_dict())
        out = (run.config for run in self.running.values() if run.kind in ("error", "seed"))
        return any(numbers_key(one.to_dict()) == key for one in out)

    def config_of(self, row: Mapping[str, Any]) -> RunConfig:
        """The settings of a row at the search's fidelity."""
        assert self.plan is not None
        seed = int(row["seed"]) if row.get("seed") is not None else None
        proposal = Proposal(str(row["trial_id"]), str(row["source"]), settings_of(row, self.space), seed)
        return self.plan.fidelity.apply(self.run_config(proposal))
