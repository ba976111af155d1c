"""What a run that has ended leads to: a plan, a row, or another run."""

from collections.abc import Mapping
from typing import Any

from search.decide.clocks.controls import controls_of
from search.decide.clocks.retiming import Retiming, end_note, start_note
from search.decide.clocks.trial import Trial
from search.decide.ledger import Ledger
from search.decide.listener import Listener
from search.decide.propose.proposals import Proposals
from search.decide.propose.study import SearchStudy, WarmStart
from search.decide.recorder import Recorder
from search.decide.runs import Run
from search.decide.spend.budget import Budget
from search.decide.spend.costs import RunCosts
from search.decide.spend.plan import Plan
from search.decide.spend.planning import Planner
from search.decide.standing import Standing
from timellm.contract.columns import BASELINE, CONFIRM, State
from timellm.contract.job import BAD_INPUT
from timellm.contract.numbers import numbers_key


class Endings:
    """Takes the outcomes of runs.

    Args:
        now: Where the search stands.
        study: What the sampler learns from.
        ledger: The table.
        planner: Makes the plan.
        costs: Learns from every run.
        budget: What is left of the time.
        proposals: Knows what is kept of it for later.
        recorder: Writes rows and errors.
        listener: Hears what happens.
        warm_start: What the sampler learns from beforehand.
    """

    def __init__(
        self,
        *,
        now: Standing,
        study: SearchStudy,
        ledger: Ledger,
        planner: Planner,
        costs: RunCosts,
        budget: Budget,
        proposals: Proposals,
        recorder: Recorder,
        listener: Listener,
        warm_start: WarmStart | None,
    ) -> None:
        self._now, self._study, self._ledger, self._planner = now, study, ledger, planner
        self._costs, self._budget, self._proposals = costs, budget, proposals
        self._recorder, self._listener, self._warm_start = recorder, listener, warm_start
        self._retiming = Retiming()

    def take(self, run: Run, outcome: Mapping[str, Any], seconds: float) -> None:
        """Take the outcome of a run.

        Args:
            run: The run; it is no longer among the running ones.
            outcome: The worker's result.
            seconds: Its wall clock.

        Raises:
            OSError: If the disk refuses.
        """
        if self._is_baseline_refused(run, outcome):
            reason = f"The baseline cannot be trained: {outcome.get('error')}"
            self._now.refusal = self._now.stop_reason = reason
            outcome = {**outcome, "state": str(State.INTERRUPTED), "error": reason}  # a resumed search tries it again
        if run.kind == "probe":
            self._take_plan(self._planner.from_probe(outcome, self._budget.left()))
        elif run.kind == "control":
            self._take_controls(outcome)
        elif run.kind in ("error", "seed"):
            self._take_error(run, outcome, seconds)
        elif run.kind == "together":
            self._take_both(run, outcome)
        else:
            self._take_timing(run, outcome)

    def go_on(self, plan: Plan) -> None:
        """Take in what the table holds already, where the plan needs no measurement."""
        self._budget.planned_seconds = plan.trial_seconds
        for row in self._ledger.rows:
            config = self._now.config_of(row)
            if row["state"] == State.COMPLETE or row.get("time_from"):
                self._costs.learn_timing(config, row)
            if row.get("time_from") == row["trial_id"]:
                self._now.times.add(row["trial_id"], config, row)
        self._warm(plan)

    def _is_baseline_refused(self, run: Run, outcome: Mapping[str, Any]) -> bool:
        """Whether a run shows that the input is wrong, so that every other trial would fail too."""
        if self._now.stop_reason or not outcome.get(BAD_INPUT):
            return False
        return run.kind == "probe" or (run.trial is not None and run.trial.proposal.source == BASELINE)

    def _take_plan(self, plan: Plan) -> None:
        if self._now.stop_reason:  # an interrupted measurement leaves a guess, which is not kept
            return
        self._now.plan = plan
        self._budget.planned_seconds = plan.trial_seconds
        self._listener.planned(plan, self._ledger.rows)
        self._warm(plan)

    def _take_controls(self, outcome: Mapping[str, Any]) -> None:
        if self._now.stop_reason:
            self._now.has_controls = False
        else:
            self._listener.controls(controls_of(outcome), self._ledger.rows)

    def _take_timing(self, run: Run, outcome: Mapping[str, Any]) -> None:
        """A timing has ended: of a trial that is possible, the error follows."""
        trial = _of(run)
        if run.kind == "again":
            counts = self._retiming.counts(outcome)
            trial.timing = outcome if counts else trial.timing
            self._listener.note(end_note(trial.name, trial.folder, counts), is_kept=True)
        elif outcome["state"] != State.COMPLETE:
            self._take_failed_timing(trial, outcome)
            return
        else:
            trial.timing, trial.time_from = outcome, trial.name
            self._costs.learn_timing(trial.config, outcome)
            if self._now.plan is None:
                self._take_plan(self._planner.from_timing(outcome, self._costs, self._budget.left()))
                self._place(trial)
            if self._retiming.is_wanted(outcome) and self._may_time_again(trial):
                self._listener.note(start_note(trial.name), is_kept=False)
                self._now.queue.append(("again", trial))
                return
        self._now.times.add(trial.name, trial.config, trial.timing or {})
        self._now.queue.append(("together" if self._now.is_together else "error", trial))

    def _take_failed_timing(self, trial: Trial, outcome: Mapping[str, Any]) -> None:
        if self._now.plan is None:
            self._take_plan(self._planner.from_timing(outcome, self._costs, self._budget.left()))
            self._place(trial)
        self._recorder.finish(trial, trial.untimed(outcome))

    def _place(self, trial: Trial) -> None:
        """Give the trial that the plan was made from the fidelity of the plan."""
        if self._now.plan is not None:
            trial.config = self._now.plan.fidelity.apply(trial.config)

    def _take_error(self, run: Run, outcome: Mapping[str, Any], seconds: float) -> None:
        """An error training has ended: so have the trials that waited for it."""
        state, trial = State(outcome["state"]), run.trial
        if self._now.plan is not None:
            self._costs.learn_error(run.config, self._now.plan.fidelity, outcome, seconds)
        training = None
        if state not in (State.INTERRUPTED, State.STOPPED_EARLY):
            training = self._recorder.add_error(run.trial_id, run.config, outcome, seconds)
        if trial is not None:
            self._recorder.finish(trial, trial.after_error(training, state, outcome, self._now.stop_reason))
        else:
            self._listener.row(None, self._ledger.rows)
        same = [
            one for one in self._now.waiting if numbers_key(one.config.to_dict()) == numbers_key(run.config.to_dict())
        ]
        self._now.waiting = [one for one in self._now.waiting if one not in same]
        self._now.queue.extend(("error", one) for one in same)

    def _take_both(self, run: Run, outcome: Mapping[str, Any]) -> None:
        """A run for both time and error has ended; the study is told once, after a second timing if there is one."""
        trial = _of(run)
        if trial.first_row is None:
            if outcome["state"] == State.COMPLETE:
                self._costs.learn_timing(trial.config, outcome)
            row = self._recorder.write(trial, outcome)
            if self._retiming.is_wanted(row) and self._may_time_again(trial):
                trial.first_row = row
                self._now.queue.append(("together", trial))
                self._listener.note(start_note(trial.name), is_kept=False)
                return
        else:
            counts = self._retiming.counts(outcome)
            row = self._recorder.write(trial, outcome) if counts else dict(trial.first_row)
            self._listener.note(end_note(trial.name, trial.folder, counts), is_kept=True)
        self._recorder.tell(trial, row)

    def _may_time_again(self, trial: Trial) -> bool:
        if self._now.stop_reason or self._now.plan is None:
            return False
        is_last = trial.proposal.source == CONFIRM
        return self._budget.has_time(0.0 if is_last else self._proposals.reserve(self._now.plan))

    def _warm(self, plan: Plan) -> None:
        """Let the sampler learn from trials of another search at the same fidelity, once."""
        warm = self._warm_start
        if warm is not None and warm.rows and self._study.is_new:
            count = self._study.inform([row for row in warm.rows if plan.fidelity.is_of(row)], warm.run)
            text = f"The sampler learns from {count} trials of {warm.run} at the same fidelity."
            self._listener.note(text, is_kept=False)


def _of(run: Run) -> Trial:
    """The trial of a run that has one."""
    assert run.trial is not None
    return run.trial
