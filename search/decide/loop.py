"""The loop of a search: which run is next, and what has become of the last one.

It knows nothing of Ray, of processes or of a terminal: `next` hands out a job, `ended` takes its outcome. With
clocks apart a trial is a timing, as configured, and an error training on the cheapest path with the same numbers; a
time or an error that is known already is taken.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from search.decide.clocks.cheapest import reason_to_stay_together
from search.decide.clocks.confirmation import Confirmation
from search.decide.clocks.errors import ErrorBook
from search.decide.clocks.seeds import missing
from search.decide.clocks.trial import TIMED_ONLY, Trial
from search.decide.endings import Endings
from search.decide.ledger import Ledger
from search.decide.listener import Listener
from search.decide.propose.levels import Levels
from search.decide.propose.proposals import Proposals
from search.decide.propose.study import Proposal, SearchStudy, WarmStart
from search.decide.recorder import Recorder
from search.decide.runs import SPENDING_OF, Run, Runs
from search.decide.spend.budget import Budget
from search.decide.spend.costs import RunCosts
from search.decide.spend.limits import Limits
from search.decide.spend.plan import Plan
from search.decide.spend.planning import Planner
from search.decide.spend.spending import TimeSpent
from search.decide.standing import Standing
from search.decide.workplace import Workplace
from spaces import Space
from timellm.contract.columns import BASELINE, CONFIRM, State
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import RunFolder


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
        time_spent: Counts what runs take, those of earlier sessions included.
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
        time_spent: TimeSpent | None = None,
        warm_start: WarmStart | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._study, self._ledger, self._folder = study, ledger, folder
        self._run_config, self._planner, self._costs, self._workplace = run_config, planner, costs, workplace
        self._limits, self._confirmation, self._listener, self._clock = limits, confirmation, listener, clock
        self._seed = seed
        self._runs = Runs(
            folder=folder,
            baseline=planner.baseline,
            workplace=workplace,
            costs=costs,
            limits=limits,
            rungs_of=rungs_of,
            listener=listener,
        )
        self._now = Standing(
            plan=plan,
            has_controls=has_controls,
            book=ErrorBook(folder),
            run_config=run_config,
            space=space,
        )
        self._spent = time_spent or TimeSpent({})
        self._budget = Budget(limits, ledger, clock)
        self._proposals = self._new_proposals(space)
        self._recorder = Recorder(ledger, self._now.book, study, listener, self._now.config_of)
        self._endings = Endings(
            now=self._now,
            study=study,
            ledger=ledger,
            planner=planner,
            costs=costs,
            budget=self._budget,
            proposals=self._proposals,
            recorder=self._recorder,
            listener=listener,
            warm_start=warm_start,
        )
        if plan is not None:
            self._endings.go_on(plan)

    def _new_proposals(self, space: Space) -> Proposals:
        return Proposals(
            study=self._study,
            ledger=self._ledger,
            levels=Levels(space, self._planner.baseline.to_dict(), self._seed),
            confirmation=self._confirmation,
            run_config=self._run_config,
            baseline=self._planner.baseline,
            devices=self._workplace.devices,
            costs=self._costs,
            budget=self._budget,
            limits=self._limits,
            listener=self._listener,
            time_spent=self.time_spent,
            is_trained=self._now.is_trained,
            is_timed=lambda config: self._now.times.known(config) is not None,
        )

    # What is next

    @property
    def stop_reason(self) -> str | None:
        """Why the search was ended before its end; None while it runs."""
        return self._now.stop_reason

    @property
    def refusal(self) -> str | None:
        """Why nothing of this search can be trained: its baseline was refused as bad input. None otherwise."""
        return self._now.refusal

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
        return bool(self._now.running)

    @property
    def clocks(self) -> str:
        """Whether time and error are measured apart or together."""
        return self._now.plan.clocks if self._now.plan is not None else self._planner.clocks

    def next(self) -> Job | None:
        """The next job; None if there is none at the moment, or, if nothing is running, none at all."""
        if self.stop_reason:
            return None
        plan = self._now.plan
        if plan is None:
            run = None if self._now.running else self._opening()
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
        self._now.running[run.job.run_dir] = run
        if run.trial is not None:
            self._listener.started(run.trial.proposal, "time" if run.kind == "again" else run.kind)
        return run.job

    def can_stop_early(self, job: Job) -> bool:
        """Whether a scheduler may stop a job at its rungs: only those of the sampler's trials have any."""
        return bool(job.rungs)

    def seconds_per_epoch(self, job: Job) -> float | None:
        """The known time of a job's trial, for a scheduler that judges its error."""
        trial = self._now.running[job.run_dir].trial
        return trial.timing.get("seconds_per_epoch") if trial and trial.timing else None

    def end_by(self, job: Job) -> float | None:
        """Unix time at which a job is told to end: its own length after the deadline."""
        if self._limits.deadline is None:
            return None
        return self._limits.deadline + self._expected(self._now.running[job.run_dir])

    def _opening(self) -> Run:
        """The run that the plan is made from: the timing of the baseline's trial, or a probe outside any trial."""
        if self._planner.clocks == "together":
            return self._runs.probe()
        proposal = self._study.propose()
        assert proposal is not None, "the baseline is always possible"
        config, folder = self._run_config(proposal), self._folder.trial(proposal.trial_id)
        return self._runs.timing(Trial(proposal, config, folder, started_at=self._clock()))

    def _control(self, plan: Plan) -> Run | None:
        """The forecast without a language model, before anything else is trained."""
        if self._now.has_controls:
            return None
        self._now.has_controls = True
        return self._runs.control(plan)

    def _queued(self, plan: Plan) -> Run | None:
        """What follows from runs that have ended."""
        while self._now.queue:
            kind, trial = self._now.queue.popleft()
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
        while (proposal := self._proposals.next(plan, self._now.open_trials())) is not None:
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
        for trial_id, config in missing(rows, self._now.config_of, self._now.is_trained, seeds):
            if self._budget.fits(self._costs.error_seconds(config, plan.fidelity)):
                return self._runs.seed(trial_id, config)
        return None

    def _confirmed(self, plan: Plan) -> Run | None:
        if self._now.running or not self._budget.has_time():
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
        known = self._now.times.known(config) if proposal.source != CONFIRM else None
        if known is None:
            return self._runs.timing(trial)
        trial.time_from, trial.timing = known
        return self._error(trial, plan)

    def _error(self, trial: Trial, plan: Plan) -> Run | None:
        """The training of a trial's error; None if it is known, being trained, or does not fit the time."""
        known = self._now.book.known(trial.config)
        if known is not None:
            self._recorder.finish(trial, trial.with_error(known))
        elif self._now.is_trained(trial.config):
            self._now.waiting.append(trial)
        elif not self._budget.fits(self._costs.error_seconds(trial.config, plan.fidelity)):
            self._recorder.finish(trial, trial.without_error(State.STOPPED_EARLY, TIMED_ONLY))
        else:
            return self._runs.error(trial, plan)
        return None

    # What has become of it

    def ended(self, job: Job, outcome: Mapping[str, Any]) -> None:
        """Take the outcome of a job.

        Args:
            job: One that `next` returned.
            outcome: Fields of the worker's result, `state` among them.

        Raises:
            OSError: If the disk refuses; what was measured is kept and written with the next row.
        """
        run = self._now.running.pop(job.run_dir, None)
        if run is None:
            return
        seconds = self._clock() - run.started_at
        self._spent.add(SPENDING_OF.get(run.kind, "timings"), seconds, outcome)
        if run.trial is not None:
            run.trial.seconds += seconds
        self._endings.take(run, outcome, seconds)

    def stop(self, reason: str) -> list[Job]:
        """End the search: nothing starts any more.

        Returns:
            The jobs that are running.
        """
        self._now.stop_reason = reason
        return [run.job for run in self._now.running.values()]

    def close(self) -> None:
        """Give a row to every trial that has a time but no outcome yet."""
        reason = self.stop_reason or "The search ended before the trial did."
        for trial in [*(trial for _, trial in self._now.queue), *self._now.waiting]:
            if trial.first_row is not None:
                self._study.finish(trial.name, trial.first_row)
            else:
                self._recorder.finish(trial, trial.without_error(State.INTERRUPTED, reason))
        self._now.queue.clear()
        self._now.waiting.clear()

    def _expected(self, run: Run) -> float:
        """Length of a run that is out, seconds: as predicted, or as long as the longest trial."""
        if run.kind in ("error", "seed") and self._now.plan is not None:
            return self._costs.error_seconds(run.config, self._now.plan.fidelity, with_prompts=True)
        if run.kind in ("time", "again") and self._costs.is_measured:
            return self._costs.timing_seconds(run.config)
        return self._budget.longest_seconds()
