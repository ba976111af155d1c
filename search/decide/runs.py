"""The runs that a search consists of, each made into a job."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from search.decide.clocks.cheapest import cheapest
from search.decide.clocks.controls import control_config
from search.decide.clocks.trial import Trial
from search.decide.listener import Listener
from search.decide.spend.costs import VALIDATED_BATCHES, RunCosts
from search.decide.spend.limits import Limits
from search.decide.spend.plan import PROBE_STEPS, Plan, probe_config
from search.decide.spend.spending import BASELINE_TOO_LONG
from search.decide.workplace import Workplace
from timellm.contract.columns import BASELINE, SAMPLER
from timellm.contract.config import RunConfig
from timellm.contract.job import MIN_TIMED_STEPS, Clock, Job
from timellm.contract.layout import RunFolder, TrialFolder

Kind = Literal["probe", "control", "together", "time", "again", "error", "seed"]

SPENDING_OF: dict[Kind, str] = {"error": "errors", "seed": "seeds", "control": "controls"}
"""What a run's time counts as; any other is a timing."""
_MARGIN = 1.5
"""The bound on a timing's steady steps is so much above what they are predicted to take, at least."""
_FEW_STEPS = 2
"""Steady steps of a baseline whose timing would take too much of the time."""


@dataclass
class Run:
    """A run and its job.

    Attributes:
        kind: Its purpose. A probe and a control belong to no trial; again is a second timing, seed a further error.
        job: What its worker does.
        config: The settings whose numbers it finds, at the search's fidelity; the job may compute them another way.
        trial: The trial that ends with it; None where none does.
        trial_id: Name of the trial that it is made for.
        started_at: Unix time.
    """

    kind: Kind
    job: Job
    config: RunConfig
    trial: Trial | None = None
    trial_id: str = ""
    started_at: float = field(default_factory=time.time)


class Runs:
    """Makes the runs of a search.

    Args:
        folder: The run folder.
        baseline: The whole training run of the baseline.
        workplace: What jobs may use.
        costs: Predicts what runs take.
        limits: When the search ends.
        rungs_of: Training windows seen after which poor trials of a plan are stopped.
        listener: Hears of a timing that is cut short.
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        baseline: RunConfig,
        workplace: Workplace,
        costs: RunCosts,
        limits: Limits,
        rungs_of: Callable[[Plan], tuple[int, ...]],
        listener: Listener,
    ) -> None:
        self._folder, self._baseline, self._workplace = folder, baseline, workplace
        self._costs, self._limits, self._rungs_of, self._listener = costs, limits, rungs_of, listener

    def probe(self) -> Run:
        """The short run of the baseline that a plan with one clock is made from."""
        return self._made("probe", probe_config(self._baseline), self._folder.probe, "together", PROBE_STEPS)

    def control(self, plan: Plan) -> Run:
        """The forecast without a language model, at the fidelity of the trials."""
        clock: Clock = "error" if plan.clocks == "apart" else "together"
        config = plan.fidelity.apply(control_config(self._baseline))
        return self._made("control", config, self._folder.control, clock, PROBE_STEPS)

    def together(self, trial: Trial, plan: Plan) -> Run:
        """A run for both time and error; if the trial already has a row, a second run for its timing."""
        if trial.first_row is not None:
            return self._made("together", trial.config, trial.folder.retimed, "together", trial=trial)
        rungs = self._rungs(trial, plan)
        return self._made("together", trial.config, trial.folder, "together", trial=trial, rungs=rungs)

    def timing(self, trial: Trial) -> Run:
        """A timing: it reads as many windows as its steps need and does not depend on the fidelity."""
        steps, config = MIN_TIMED_STEPS, trial.config
        kind: Kind = "time" if trial.timing is None else "again"
        if trial.proposal.source == BASELINE and self._is_too_long(config):
            config, steps = config.replace(warmup_steps=1), _FEW_STEPS
            if kind == "time":
                self._listener.note(
                    "The baseline is timed with one warm-up step and two others: more would be a quarter of the time.",
                    is_kept=True,
                )
        short = config.replace(
            train_samples=(config.untimed_steps + steps) * config.global_batch,
            val_samples=VALIDATED_BATCHES * config.evaluation_batch,
        )
        folder = trial.folder if kind == "time" else trial.folder.retimed
        least = _MARGIN * steps * self._costs.step_seconds(config)
        return self._made(kind, short, folder, "time", steps, trial=trial, least_seconds=least)

    def error(self, trial: Trial, plan: Plan) -> Run:
        """The training of a trial's error, on the cheapest path with the same numbers."""
        path, rungs = self._cheapest(trial.config), self._rungs(trial, plan)
        return self._made("error", path, trial.folder.error, "error", trial=trial, rungs=rungs)

    def seed(self, trial_id: str, config: RunConfig) -> Run:
        """The training of an error with another seed.

        Args:
            trial_id: The trial whose numbers they are.
            config: Its settings at the search's fidelity, with that seed.
        """
        folder = self._folder.trial(trial_id).error_with(config.seed)
        run = self._made("seed", self._cheapest(config), folder, "error")
        run.config, run.trial_id = config, trial_id
        return run

    def _cheapest(self, config: RunConfig) -> RunConfig:
        return cheapest(config, is_causal=self._workplace.is_causal)

    def _is_too_long(self, config: RunConfig) -> bool:
        """Whether the baseline's timing would take too much of the time, judged by the machine's speed."""
        budget = self._limits.budget_seconds
        return budget is not None and self._costs.steps_seconds(config) > BASELINE_TOO_LONG * budget

    def _rungs(self, trial: Trial, plan: Plan) -> tuple[int, ...]:
        """Where a trial may be stopped: only the sampler's are."""
        return self._rungs_of(plan) if trial.proposal.source == SAMPLER else ()

    def _made(
        self,
        kind: Kind,
        config: RunConfig,
        folder: TrialFolder,
        clock: Clock,
        steps: int = MIN_TIMED_STEPS,
        *,
        trial: Trial | None = None,
        **more: Any,
    ) -> Run:
        job = self._workplace.job(config, folder.path, clock, steps=steps, **more)
        return Run(kind, job, trial.config if trial else config, trial, trial.name if trial else "")
