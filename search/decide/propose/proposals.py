"""Which new trial is begun next, and whether one is begun at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from search.decide.clocks.confirmation import Confirmation
from search.decide.clocks.trial import Trial
from search.decide.ledger import Ledger
from search.decide.listener import Listener
from search.decide.propose.levels import Levels
from search.decide.propose.study import Proposal, SearchStudy, Settings, is_unfinished
from search.decide.spend.budget import Budget
from search.decide.spend.costs import RunCosts
from search.decide.spend.limits import Limits
from search.decide.spend.plan import Plan
from search.decide.spend.spending import SAMPLED_TOO_LONG, TOO_LONG, too_long
from timellm.contract.columns import BASELINE, CONFIRM, SAMPLER
from timellm.contract.config import RunConfig

ALL_TRIED = "every configuration of the space has been tried"
NOTHING_LEFT = "nothing is left to try that is new and fits the time and the fidelity"


@dataclass(kw_only=True)
class Proposals:
    """Asks the study for new trials while there are time and trials to spare.

    Attributes:
        study: What to try.
        ledger: The table.
        levels: What a proposal searches where time and error are measured apart.
        confirmation: What is run again at the end: time is kept for it.
        run_config: The whole training run of a proposal.
        baseline: That of the baseline.
        devices: Devices that a trial trains on together.
        costs: Predicts what runs take.
        budget: What is left of the time.
        limits: When the search ends.
        listener: Hears which plans are not begun.
        time_spent: Seconds by kind so far.
        is_trained: Whether the error of a run at the search's fidelity is known or being trained.
        is_timed: Whether the time of its settings is known.
        ended_because: Why no new trial is begun any more; empty before.
    """

    study: SearchStudy
    ledger: Ledger
    levels: Levels
    confirmation: Confirmation
    run_config: Callable[[Proposal], RunConfig]
    baseline: RunConfig
    devices: int
    costs: RunCosts
    budget: Budget
    limits: Limits
    listener: Listener
    time_spent: Mapping[str, float]
    is_trained: Callable[[RunConfig], bool]
    is_timed: Callable[[RunConfig], bool]
    ended_because: str = ""
    _has_refused: bool = field(default=False, init=False)  # whether the last call of _propose did
    _has_told: bool = field(default=False, init=False)  # of what would be compiled

    def next(self, plan: Plan, running: Sequence[Trial]) -> Proposal | None:
        """The next new trial; None at the end.

        Args:
            plan: The search's plan.
            running: Trials that have begun and not ended.
        """
        if not self.ended_because:
            self.ended_because = self._reason_to_end(plan, running) or ""
        if self.ended_because:
            return None
        proposal = self._propose(plan)
        if proposal is None:
            self.ended_because = NOTHING_LEFT if self._has_refused else ALL_TRIED
        return proposal

    def reserve(self, plan: Plan) -> float:
        """Seconds that are kept for confirmations and for the seeds of the best candidates."""
        kept = self.confirmation.trials * (self.budget.expected_seconds() or 0.0)
        if plan.spending is None:
            return kept
        return kept + max(0.0, plan.spending.seconds.get("seeds", 0.0) - self.time_spent["seeds"])

    def _propose(self, plan: Plan) -> Proposal | None:
        self._has_refused = False

        def refusal(settings: Settings, source: str) -> str | None:
            reason = self._refusal(plan, settings, source)
            self._has_refused |= reason is not None
            return reason

        if plan.clocks == "together":
            return self.study.propose(refusal=refusal)
        rows = [row for row in self.ledger.complete() if row["source"] != CONFIRM]
        for level, fixed in self.levels.next(rows, plan.spending.share_of_numbers if plan.spending else 0.5):
            proposal = self.study.propose(fixed, refusal)
            if proposal is not None:
                if proposal.source == SAMPLER:
                    self.levels.made(level)
                return proposal
        return None

    def _reason_to_end(self, plan: Plan, running: Sequence[Trial]) -> str | None:
        """Why no new trial is begun any more; None if one may be."""
        ended = {row["trial_id"] for row in self.ledger.rows if row["source"] != CONFIRM and not is_unfinished(row)}
        begun = {trial.name for trial in running if trial.proposal.source != CONFIRM}
        most = self.limits.num_trials
        if most is not None and len(ended | begun) >= most:
            return f"{most} trials have been run"
        if plan.clocks == "together":
            is_time = self.budget.has_time(self.reserve(plan))
        else:  # trials that do not fit are refused one by one
            shortest = self.costs.timing_seconds(self.costs.way(self.baseline)) / 2
            is_time = self.budget.fits(shortest + self.reserve(plan))
        if is_time:
            return None
        return "the time that is left is too short for another trial"

    def _refusal(self, plan: Plan, settings: Settings, source: str) -> str | None:
        """Why a trial is not begun now: it says nothing at this fidelity, is hopeless, or does not fit the time."""
        if source in (BASELINE, CONFIRM):
            return None
        config = self.run_config(Proposal("", source, settings))
        if source == SAMPLER and (reason := plan.fidelity.refusal(config, self.devices)):
            return reason
        if plan.fidelity.kind == "full":
            return None
        share = SAMPLED_TOO_LONG if source == SAMPLER else TOO_LONG
        reason = too_long(self.costs, config, self.limits.budget_seconds, share)
        if reason is None and plan.clocks == "apart":
            reason = self._reason_not_to_fit(plan, config)
        if reason is not None and source != SAMPLER:
            self.listener.note(f"{source} is not begun: {reason}.", is_kept=True)
        elif reason is not None:
            self._tell_of_compiling(config, share)
        return reason

    def _tell_of_compiling(self, config: RunConfig, share: float) -> None:
        """Say once that a value is not searched because of what it would compile alone."""
        seconds, budget = self.costs.compiling_seconds(config), self.limits.budget_seconds
        if self._has_told or budget is None or seconds <= share * budget:
            return
        self._has_told = True
        self.listener.note(
            f"offload_optimizer {config.offload_optimizer} is not proposed: compiling its optimizer, once on a "
            f"machine, would take about {seconds:.0f} s of {budget:.0f} s. Raise --time_budget to try it.",
            is_kept=True,
        )

    def _reason_not_to_fit(self, plan: Plan, config: RunConfig) -> str | None:
        """Why a trial does not fit the time that is left; None if it does."""
        left = self.budget.left()
        if left is None:
            return None
        seconds = 0.0 if self.is_timed(config) else self.costs.timing_seconds(config)
        at_fidelity = plan.fidelity.apply(config)
        if not self.is_trained(at_fidelity):
            seconds += self.costs.error_seconds(at_fidelity, plan.fidelity)
        return "it does not fit the time that is left" if seconds > left - self.reserve(plan) else None
