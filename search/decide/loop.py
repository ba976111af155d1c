"""The loop of a search: which run is next, and what has become of the last one.

It knows nothing of Ray, of processes or of a terminal: `next` hands out a job, `ended` takes what came of it. With
clocks apart a trial is a timing, as configured, and an error training on the cheapest path with the same numbers; a
time or an error that is known already is taken.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from search.decide.budget import Budget
from search.decide.cheapest import reason_to_stay_together
from search.decide.confirmation import Confirmation
from search.decide.controls import controls_of
from search.decide.costs import RunCosts
from search.decide.errors import ErrorBook
from search.decide.ledger import Ledger
from search.decide.levels import Levels
from search.decide.limits import Limits
from search.decide.listener import Listener
from search.decide.plan import Plan
from search.decide.planning import Planner
from search.decide.proposals import Proposals
from search.decide.recorder import Recorder
from search.decide.retiming import Retiming, end_note, start_note
from search.decide.runs import SPENDING_OF, Kind, Run, Runs
from search.decide.seeds import missing
from search.decide.spending import TimeSpent
from search.decide.study import Proposal, SearchStudy, WarmStart, settings_of
from search.decide.times import TimeBook
from search.decide.trial import TIMED_ONLY, Trial
from search.decide.workplace import Workplace
from spaces import Space
from timellm.contract.columns import BASELINE, CONFIRM, State
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import RunFolder
from timellm.contract.numbers import numbers_key


class Loop:
    """Hands out the jobs of a search and records how they end.

    Args:
        space: The resolved space.
        study: What to try.
        ledger: Where rows go.
        folder: The run folder.
        run_config: The whole training run of a proposal.
        planner: Makes the plan.
        costs: Predicts what runs take.
        workplace: What jobs may use.
        limits: When to end.
        confirmation: What is run again at the end.
        listener: Hears what happens.
        rungs_of: Training windows seen after which poor trials of a plan are stopped.
        plan: That of an earlier session, or one that needs no measurement; None makes one.
        has_controls: Whether the controls have been measured.
        time_spent: Seconds by kind, of earlier sessions.
        warm_start: What the sampler learns from beforehand.
        seed: Of the search.
        clock: Unix time.
    """

    def __init__(
        self,
        *,
        space: Space,
        study: SearchStudy,
        ledger: Ledger,
        folder: RunFolder,
        run_config: Callable[[Proposal], RunConfig],
        planner: Planner,
        costs: RunCosts,
        workplace: Workplace,
        limits: Limits,
        confirmation: Confirmation,
        listener: Listener,
        rungs_of: Callable[[Plan], tuple[int, ...]] = lambda plan: (),
        plan: Plan | None = None,
        has_controls: bool = False,
        time_spent: Mapping[str, float] | None = None,
        warm_start: WarmStart | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._space, self._study, self._ledger, self._folder = space, study, ledger, folder
        self._run_config, self._planner, self._costs, self._workplace = run_config, planner, costs, workplace
        self._limits, self._confirmation, self._listener, self._clock = limits, confirmation, listener, clock
        self._runs = Runs(
            folder=folder,
            baseline=planner.baseline,
            workplace=workplace,
            costs=costs,
            limits=limits,
            rungs_of=rungs_of,
            listener=listener,
        )
        self._plan, self._has_controls, self._seed = plan, has_controls, seed
        self._warm_start = warm_start
        self._book, self._retiming = ErrorBook(folder), Retiming()
        self._running: dict[str, Run] = {}
        self._queue: deque[tuple[Kind, Trial]] = deque()
        self._waiting: list[Trial] = []
        self._times = TimeBook()
        self._spent = TimeSpent(time_spent or {})
        self.stop_reason: str | None = None
        self._budget = Budget(limits, ledger, clock)
        self._proposals = Proposals(
            study=study,
            ledger=ledger,
            levels=Levels(space, planner.baseline.to_dict(), seed),
            confirmation=confirmation,
            run_config=run_config,
            baseline=planner.baseline,
            devices=workplace.devices,
            costs=costs,
            budget=self._budget,
            limits=limits,
            listener=listener,
            time_spent=self.time_spent,
            is_trained=self._is_trained,
            is_timed=lambda config: self._times.known(config) is not None,
        )
        self._recorder = Recorder(ledger, self._book, study, listener, self._config_of)
        if plan is not None:
            self._budget.planned_seconds = plan.trial_seconds
            self._learn_from_rows()
            self._warm(plan)

    # What is next

    @property
    def time_spent(self) -> Mapping[str, float]:
        """Seconds by kind so far, earlier sessions included."""
        return self._spent.seconds

    @property
    def ended_because(self) -> str:
        """Why no new trial is begun any more; empty before the end."""
        return self._proposals.ended_because

    @property
    def is_running(self) -> bool:
        """Whether a job is out whose end may bring more."""
        return bool(self._running)

    @property
    def clocks(self) -> str:
        """Whether time and error are measured apart or together."""
        return self._plan.clocks if self._plan is not None else self._planner.clocks

    def next(self) -> Job | None:
        """The next job; None if there is none now, and for good if none is running."""
        if self.stop_reason:
            return None
        plan = self._plan
        if plan is None:
            run = None if self._running else self._opening()
        else:
            steps = (
                self._control,
                self._queued,
                self._reseeded,
                self._proposed,
                self._seeded,
                self._confirmed,
            )
            run = next((run for step in steps if (run := step(plan)) is not None), None)
        if run is None:
            return None
        run.started_at = self._clock()
        self._running[run.job.run_dir] = run
        if run.trial is not None:
            self._listener.started(run.trial.proposal, "time" if run.kind == "again" else run.kind)
        return run.job

    def can_stop_early(self, job: Job) -> bool:
        """Whether a scheduler may stop a job at its rungs: only those of the sampler's trials have any."""
        return bool(job.rungs)

    def seconds_per_epoch(self, job: Job) -> float | None:
        """The time that is known of a job's trial, for a scheduler that judges its error."""
        trial = self._running[job.run_dir].trial
        return trial.timing.get("seconds_per_epoch") if trial and trial.timing else None

    def end_by(self, job: Job) -> float | None:
        """Unix time at which a job is told to end: its own length after the deadline."""
        if self._limits.deadline is None:
            return None
        return self._limits.deadline + self._expected(self._running[job.run_dir])

    def _opening(self) -> Run:
        """The run that the plan is made from: the baseline's timing is that of its trial, a probe is none."""
        if self._planner.clocks == "together":
            return self._runs.probe()
        proposal = self._study.propose()
        assert proposal is not None, "the baseline is always possible"
        config, folder = self._run_config(proposal), self._folder.trial(proposal.trial_id)
        return self._runs.timing(Trial(proposal, config, folder, started_at=self._clock()))

    def _control(self, plan: Plan) -> Run | None:
        """The forecast without a language model, before anything else is trained."""
        if self._has_controls:
            return None
        self._has_controls = True
        return self._runs.control(plan)

    def _queued(self, plan: Plan) -> Run | None:
        """What follows from runs that have ended."""
        while self._queue:
            kind, trial = self._queue.popleft()
            if kind == "again":
                return self._runs.timing(trial)
            if kind == "together":
                return self._runs.together(trial, plan)
            run = self._error(trial, plan)
            if run is not None:
                return run
        return None

    def _proposed(self, plan: Plan) -> Run | None:
        """The next new trial; one whose time and error are both known is recorded without a run."""
        while (proposal := self._proposals.next(plan, self._open_trials())) is not None:
            run = self._begin(proposal, plan)
            if run is not None:
                return run
        return None

    def _reseeded(self, plan: Plan) -> Run | None:
        """An error training of the baseline's with another seed, early: how much noise errors hold follows from it."""
        return self._seeded(plan, with_candidates=False)

    def _seeded(self, plan: Plan, *, with_candidates: bool = True) -> Run | None:
        """An error training with another seed: the baseline's and, after the last new trial, the best candidates'."""
        if plan.spending is None:
            return None
        seeds = [self._seed + place for place in range(plan.spending.seeds)]
        rows = [row for row in self._ledger.rows if with_candidates or row["source"] == BASELINE]
        for trial_id, config in missing(rows, self._config_of, self._is_trained, seeds):
            if self._budget.fits(self._costs.error_seconds(config, plan.fidelity)):
                return self._runs.seed(trial_id, config)
        return None

    def _confirmed(self, plan: Plan) -> Run | None:
        if self._running or not self._budget.has_time():
            return None
        while (proposal := self._confirmation.next()) is not None:
            run = self._begin(proposal, plan)
            if run is not None:
                return run
        return None

    def _begin(self, proposal: Proposal, plan: Plan) -> Run | None:
        """The first run of a trial; None if there is nothing to run because all of it is known."""
        config = plan.fidelity.apply(self._run_config(proposal))
        trial = Trial(proposal, config, self._folder.trial(proposal.trial_id), started_at=self._clock())
        if plan.clocks == "together" or reason_to_stay_together(config, self._workplace.devices):
            return self._runs.together(trial, plan)
        known = self._times.known(config) if proposal.source != CONFIRM else None
        if known is None:
            return self._runs.timing(trial)
        trial.time_from, trial.timing = known
        return self._error(trial, plan)

    def _error(self, trial: Trial, plan: Plan) -> Run | None:
        """The training of a trial's error; None if it is known, being trained, or does not fit the time."""
        known = self._book.known(trial.config)
        if known is not None:
            self._recorder.finish(trial, trial.with_error(known))
        elif self._is_trained(trial.config):
            self._waiting.append(trial)
        elif not self._budget.fits(self._costs.error_seconds(trial.config, plan.fidelity)):
            self._recorder.finish(trial, trial.without_error(State.STOPPED_EARLY, TIMED_ONLY))
        else:
            return self._runs.error(trial, plan)
        return None

    # What has become of it

    def ended(self, job: Job, outcome: Mapping[str, Any]) -> None:
        """Take what came of a job.

        Args:
            job: One that `next` returned.
            outcome: Fields of the worker's result, `state` among them.

        Raises:
            OSError: If the disk refuses; what was measured is kept and written with the next row.
        """
        run = self._running.pop(job.run_dir, None)
        if run is None:
            return
        seconds = self._clock() - run.started_at
        self._spent.add(SPENDING_OF.get(run.kind, "timings"), seconds, outcome)
        if run.trial is not None:
            run.trial.seconds += seconds
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

    def stop(self, reason: str) -> list[Job]:
        """End the search: nothing starts any more.

        Returns:
            The jobs that are running.
        """
        self.stop_reason = reason
        return [run.job for run in self._running.values()]

    def close(self) -> None:
        """Give a row to every trial that has a time but was never told more."""
        reason = self.stop_reason or "The search ended before the trial did."
        for trial in [*(trial for _, trial in self._queue), *self._waiting]:
            if trial.first_row is not None:
                self._study.finish(trial.name, trial.first_row)
            else:
                self._recorder.finish(trial, trial.without_error(State.INTERRUPTED, reason))
        self._queue.clear()
        self._waiting.clear()

    def _take_plan(self, plan: Plan) -> None:
        if self.stop_reason:  # what an interrupted measurement leaves is a guess that a resumed search shall not keep
            return
        self._plan = plan
        self._budget.planned_seconds = plan.trial_seconds
        self._listener.planned(plan, self._ledger.rows)
        self._warm(plan)

    def _take_controls(self, outcome: Mapping[str, Any]) -> None:
        if self.stop_reason:
            self._has_controls = False
        else:
            self._listener.controls(controls_of(outcome), self._ledger.rows)

    def _take_timing(self, run: Run, outcome: Mapping[str, Any]) -> None:
        """A timing has ended: of a trial that is possible, the error follows."""
        trial = _of(run)
        if run.kind == "again":
            counts = self._retiming.counts(outcome)
            trial.timing = outcome if counts else trial.timing
            self._listener.note(end_note(trial.name, counts), is_kept=True)
        elif outcome["state"] != State.COMPLETE:
            self._take_failed_timing(trial, outcome)
            return
        else:
            trial.timing, trial.time_from = outcome, trial.name
            self._costs.learn_timing(trial.config, outcome)
            if self._plan is None:
                self._take_plan(self._planner.from_timing(outcome, self._costs, self._budget.left()))
                self._place(trial)
            if self._retiming.is_wanted(outcome) and self._may_time_again(trial):
                self._listener.note(start_note(trial.name), is_kept=False)
                self._queue.append(("again", trial))
                return
        self._times.add(trial.name, trial.config, trial.timing or {})
        self._queue.append(("together" if self.clocks == "together" else "error", trial))

    def _take_failed_timing(self, trial: Trial, outcome: Mapping[str, Any]) -> None:
        if self._plan is None:
            self._take_plan(self._planner.from_timing(outcome, self._costs, self._budget.left()))
            self._place(trial)
        self._recorder.finish(trial, trial.untimed(outcome))

    def _place(self, trial: Trial) -> None:
        """Give the trial that the plan was made from the fidelity of the plan."""
        if self._plan is not None:
            trial.config = self._plan.fidelity.apply(trial.config)

    def _take_error(self, run: Run, outcome: Mapping[str, Any], seconds: float) -> None:
        """An error training has ended: so have the trials that waited for it."""
        state, trial = State(outcome["state"]), run.trial
        if self._plan is not None:
            self._costs.learn_error(run.config, self._plan.fidelity, outcome, seconds)
        training = None
        if state not in (State.INTERRUPTED, State.STOPPED_EARLY):
            training = self._recorder.add_error(run.trial_id, run.config, outcome, seconds)
        if trial is not None:
            self._recorder.finish(trial, trial.after_error(training, state, outcome, self.stop_reason))
        else:
            self._listener.row(None, self._ledger.rows)
        same = [one for one in self._waiting if numbers_key(one.config.to_dict()) == numbers_key(run.config.to_dict())]
        self._waiting = [one for one in self._waiting if one not in same]
        self._queue.extend(("error", one) for one in same)

    def _take_both(self, run: Run, outcome: Mapping[str, Any]) -> None:
        """A run for both numbers has ended; the study is told once, after a second timing if there is one."""
        trial = _of(run)
        if trial.first_row is None:
            if outcome["state"] == State.COMPLETE:
                self._costs.learn_timing(trial.config, outcome)
            row = self._recorder.write(trial, outcome)
            if self._retiming.is_wanted(row) and self._may_time_again(trial):
                trial.first_row = row
                self._queue.append(("together", trial))
                self._listener.note(start_note(trial.name), is_kept=False)
                return
        else:
            counts = self._retiming.counts(outcome)
            row = self._recorder.write(trial, outcome) if counts else dict(trial.first_row)
            self._listener.note(end_note(trial.name, counts), is_kept=True)
        self._recorder.tell(trial, row)

    # What is allowed

    def _open_trials(self) -> list[Trial]:
        running = [run.trial for run in self._running.values() if run.trial is not None]
        return [*running, *(trial for _, trial in self._queue), *self._waiting]

    def _may_time_again(self, trial: Trial) -> bool:
        if self.stop_reason or self._plan is None:
            return False
        is_last = trial.proposal.source == CONFIRM
        return self._budget.has_time(0.0 if is_last else self._proposals.reserve(self._plan))

    def _is_trained(self, config: RunConfig) -> bool:
        """Whether a run's error is known or being trained."""
        key = numbers_key(config.to_dict())
        out = (run.config for run in self._running.values() if run.kind in ("error", "seed"))
        return self._book.known(config) is not None or any(numbers_key(one.to_dict()) == key for one in out)

    def _expected(self, run: Run) -> float:
        """Length of a run that is out, seconds: as predicted, or as long as the longest trial."""
        if run.kind in ("error", "seed") and self._plan is not None:
            return self._costs.error_seconds(run.config, self._plan.fidelity, with_prompts=True)
        if run.kind in ("time", "again") and self._costs.is_measured:
            return self._costs.timing_seconds(run.config)
        return self._budget.longest_seconds()

    # What earlier sessions left

    def _warm(self, plan: Plan) -> None:
        """Let the sampler learn from trials of another search at the same fidelity, once."""
        warm = self._warm_start
        if warm is not None and warm.rows and self._study.is_new:
            count = self._study.inform([row for row in warm.rows if plan.fidelity.is_of(row)], warm.run)
            text = f"The sampler learns from {count} trials of {warm.run} at the same fidelity."
            self._listener.note(text, is_kept=False)

    def _config_of(self, row: Mapping[str, Any]) -> RunConfig:
        """The settings of a row at the search's fidelity."""
        assert self._plan is not None
        seed = int(row["seed"]) if row.get("seed") is not None else None
        proposal = Proposal(str(row["trial_id"]), str(row["source"]), settings_of(row, self._space), seed)
        return self._plan.fidelity.apply(self._run_config(proposal))

    def _learn_from_rows(self) -> None:
        """Take in times that the table holds already."""
        for row in self._ledger.rows:
            config = self._config_of(row)
            if row["state"] == State.COMPLETE or row.get("time_from"):
                self._costs.learn_timing(config, row)
            if row.get("time_from") == row["trial_id"]:
                self._times.add(row["trial_id"], config, row)


def _of(run: Run) -> Trial:
    """The trial of a run that has one."""
    assert run.trial is not None
    return run.trial
