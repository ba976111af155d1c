"""The plan of a search: how much of the training each trial does, and how many trials fit the time budget."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from search.decide.spend.costs import SECONDS_AROUND, slowdown_of
from search.decide.spend.fidelity import STEP, Fidelity
from search.decide.spend.spending import Spending
from timellm.contract.config import RunConfig
from timellm.contract.job import MAX_EXTRA_SECONDS

WANTED_TRIALS, FEWEST_TRIALS = 12, 8
"""Trials that a time budget should hold, and should hold at least."""
TELLING_SAMPLES = 128
"""Below this a trial says little: rather fewer trials than shorter ones."""
SAMPLER_SHARE = 0.5
"""Length of the sampler's trials, relative to the baseline's: it soon finds faster ones."""
PROBE_STEPS = 2
"""Optimizer steps of the baseline that a plan is measured from."""
FINAL_SECONDS = 10.0
"""Report and recommendations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeCosts:
    """What the baseline costs here, from a measured probe."""

    startup_seconds: float
    """From the start of a process to its first step."""
    seconds_per_sample: float
    """Training, per window."""
    validation_seconds_per_sample: float
    """Validation, per window."""
    timed_steps: int
    """Optimizer steps that a trial times at least."""
    slowdown: Mapping[str, float] = field(default_factory=dict)
    """Time of a matrix product in a precision, relative to fp32, by the precision's name; 1 where it is not named."""

    @classmethod
    def from_result(
        cls, result: Mapping[str, Any], windows: Mapping[str, int], steps: int, slowdown: Mapping[str, float]
    ) -> "ProbeCosts":
        """From a probe's result.

        Args:
            result: The worker's result.
            windows: Windows per split.
            steps: Steps that are timed at least.
            slowdown: Time of a matrix product in a precision, relative to fp32.
        """
        epoch = float(result["seconds_per_epoch"])
        return cls(
            startup_seconds=float(result["startup_seconds"]) + float(result.get("compile_seconds") or 0.0),
            seconds_per_sample=epoch / windows["train"],
            validation_seconds_per_sample=float(result["validation_seconds"]) / windows["validation"],
            timed_steps=steps,
            slowdown=slowdown,
        )

    def slowdown_of(self, precision: str, prompt_prefix: str) -> float:
        """Time in a precision, relative to fp32."""
        return slowdown_of(self.slowdown, precision, prompt_prefix)

    def seconds(self, fidelity: Fidelity, config: RunConfig, windows: Mapping[str, int]) -> float:
        """Expected length of a trial that computes as the baseline does, in another precision and batch perhaps.

        Args:
            fidelity: How much of the training it does.
            config: Its precision, batch, epochs and how often it validates.
            windows: Windows per split.
        """
        slowdown = self.slowdown_of(config.precision, config.prompt_prefix)
        per_sample = self.seconds_per_sample * slowdown
        if fidelity.train_samples is None:
            validations = math.ceil(config.train_epochs / config.validate_every)
            train = config.train_epochs * windows["train"]
            validated = validations * windows["validation"] + windows["test"]
        else:
            train = fidelity.train_samples
            validated = min(fidelity.val_samples or windows["validation"], windows["validation"])
        return (
            self.startup_seconds
            + train * per_sample
            + self._extra_seconds(train, config, per_sample)
            + validated * self.validation_seconds_per_sample * slowdown
            + SECONDS_AROUND
        )

    def _extra_seconds(self, train: int, config: RunConfig, per_sample: float) -> float:
        """Steps that a short trial takes only to be timed; the worker stops them after a while."""
        step = config.global_batch * per_sample
        missing = config.untimed_steps + self.timed_steps - train // config.global_batch
        untimed = max(0, missing - self.timed_steps)
        return untimed * step + min(max(0, missing - untimed) * step, max(step, MAX_EXTRA_SECONDS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a search intends."""

    fidelity: Fidelity
    """How much of the training each trial does."""
    trial_seconds: float | None = None
    """Expected length of the baseline's trial; None where nothing was measured."""
    trials: int | None = None
    """Trials expected to fit; None where unknown."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    spending: Spending | None = None
    """How the time is spent where time and error are measured apart; None where one run measures both."""

    @property
    def clocks(self) -> Literal["apart", "together"]:
        """Whether time and error are measured apart."""
        return "together" if self.spending is None else "apart"

    def __str__(self) -> str:
        """In words."""
        if self.spending is not None:
            return f"Every error is that of {self.fidelity}. {self.spending}"
        text = f"Every trial is {self.fidelity}."
        if self.trial_seconds is None:
            return f"{text} What a trial costs is unknown until the baseline has been measured."
        text += f" The baseline is expected to take {self.trial_seconds:.0f} s"
        return text + (f", and about {self.trials} trials to fit." if self.trials else ".")


def fixed_plan(asked: Literal["full"] | int) -> Plan:
    """The plan of a fidelity that the user chose."""
    return Plan(fidelity=Fidelity(kind="full") if asked == "full" else Fidelity.of_samples(asked))


def choose_plan(
    *,
    costs: ProbeCosts,
    config: RunConfig,
    windows: Mapping[str, int],
    seconds: float | None,
    plans: Sequence[RunConfig],
    repeats: int,
    precisions: Sequence[str] = ("fp32",),
    prompt_prefixes: Sequence[str] = ("recompute",),
) -> Plan:
    """The largest fidelity at which enough trials fit the time that is left.

    Args:
        costs: What the baseline costs.
        config: The baseline at full fidelity.
        windows: Windows per split.
        seconds: Time for trials; None for no limit.
        plans: What is tried after the baseline.
        repeats: Confirmations, the baseline's included; they are taken to be as long as the sampler's trials.
        precisions: Those that the sampler chooses from.
        prompt_prefixes: Likewise.
    """
    full = Fidelity(kind="full")
    if seconds is None:
        return Plan(fidelity=full, trial_seconds=costs.seconds(full, config, windows))
    available = max(0.0, seconds - FINAL_SECONDS)

    first, chosen_from = [config, *plans], list(itertools.product(precisions, prompt_prefixes))
    share = SAMPLER_SHARE * statistics.fmean(itertools.starmap(costs.slowdown_of, chosen_from))

    def total(fidelity: Fidelity, trials: int) -> float:
        sampled = (max(0, trials - len(first)) + repeats) * share * costs.seconds(fidelity, config, windows)
        return sum(costs.seconds(fidelity, one, windows) for one in first) + sampled

    def largest(trials: int) -> Fidelity | None:
        steps = range(windows["train"] // STEP * STEP, 0, -STEP)
        candidates = itertools.chain([full], map(Fidelity.of_samples, steps))
        return next((one for one in candidates if total(one, trials) <= available), None)

    chosen, notes = largest(WANTED_TRIALS), []
    if chosen is None or (chosen.train_samples or math.inf) < TELLING_SAMPLES:
        fewer = largest(FEWEST_TRIALS)
        chosen = Fidelity.of_samples(min(TELLING_SAMPLES, (fewer and fewer.train_samples) or STEP))
        if fewer is None:
            notes.append(
                f"The time budget is too short for {FEWEST_TRIALS} trials even of {STEP} training windows; "
                "fewer will be run. Raise --time_budget for a search that tells more."
            )
    length = costs.seconds(chosen, config, windows)
    fitting = sum(
        1
        for trials in range(1, len(first) + 1)
        if sum(costs.seconds(chosen, one, windows) for one in first[:trials]) <= available
    )
    rest = max(0.0, available - total(chosen, 0))
    trials = fitting + (int(rest // (length * share)) if fitting == len(first) else 0)
    return Plan(fidelity=chosen, trial_seconds=length, trials=max(1, trials), notes=tuple(notes))


def probe_config(baseline: RunConfig) -> RunConfig:
    """The short run of the baseline that a plan is measured from."""
    steps = baseline.untimed_steps + PROBE_STEPS
    return baseline.replace(train_samples=steps * baseline.global_batch, val_samples=STEP)
