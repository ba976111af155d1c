"""Makes the plan of a search from the user's options and what has been measured."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from search.decide.propose.parameters import parameters
from search.decide.spend.costs import RunCosts
from search.decide.spend.fidelity import Fidelity
from search.decide.spend.plan import FINAL_SECONDS, Plan, ProbeCosts, choose_plan, fixed_plan
from search.decide.spend.spending import SAMPLED_TOO_LONG, Spending, spend, too_long
from spaces import Space
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.job import MIN_TIMED_STEPS

UNMEASURED = 256
"""Training windows of a trial where the baseline could not be measured."""
_DRAWN = 40
"""Configurations that stand for those the sampler will propose."""

Clocks = Literal["apart", "together"]


def choose_clocks(asked: str | None, fidelity: Literal["auto", "full"] | int, budget: float | None) -> Clocks:
    """Whether time and error are measured apart.

    Args:
        asked: The flag; None where it was left out.
        fidelity: What was asked for.
        budget: The time budget, seconds; without one `auto` is the whole training.

    Raises:
        InputError: If a whole training run is to be split in two.
    """
    is_whole = fidelity == "full" or (fidelity == "auto" and budget is None)
    if asked == "apart" and is_whole:
        raise InputError(
            "--clocks apart must go with --fidelity SAMPLES, or auto and a time budget: a full trial is one whole run "
            "as configured. Drop --clocks."
        )
    if asked is not None:
        return "together" if asked == "together" else "apart"
    return "together" if is_whole else "apart"


@dataclass(frozen=True, kw_only=True)
class Planner:
    """What a plan is made from.

    Attributes:
        asked: The fidelity that was asked for.
        clocks: Whether time and error are measured apart.
        space: The resolved space.
        config: Settings of every run that the space does not vary.
        baseline: The whole training run of the baseline.
        plans: Those of the plans.
        windows: Windows per split.
        slowdown: Time of a product in a precision relative to fp32.
        budget: The whole time budget, seconds; None for none.
        repeats: Confirmations, the baseline's included.
        seed: Of the draws.
        devices: Devices of a trial.
    """

    asked: Literal["auto", "full"] | int
    clocks: Clocks
    space: Space
    config: RunConfig
    baseline: RunConfig
    plans: Sequence[RunConfig]
    windows: Mapping[str, int]
    slowdown: Mapping[str, float]
    budget: float | None
    repeats: int = 0
    seed: int = 0
    devices: int = 1

    def without_measurement(self) -> Plan | None:
        """The plan that needs no measurement; None where the baseline must be measured first."""
        if self.clocks == "apart":
            return None
        if self.asked != "auto":
            return fixed_plan(self.asked)
        return Plan(fidelity=Fidelity(kind="full")) if self.budget is None else None

    def from_probe(self, outcome: Mapping[str, Any], seconds: float | None) -> Plan:
        """The plan of a search whose trials are one run each, from a short run of the baseline.

        Args:
            outcome: Of the probe.
            seconds: Time that is left.
        """
        if outcome["state"] != State.COMPLETE or not outcome.get("seconds_per_epoch"):
            note = f"The baseline could not be measured, so the plan is a guess: {outcome.get('error')}"
            return Plan(fidelity=Fidelity.of_samples(UNMEASURED), notes=(note,))
        return choose_plan(
            costs=ProbeCosts.from_result(outcome, self.windows, MIN_TIMED_STEPS, self.slowdown),
            config=self.baseline,
            windows=self.windows,
            seconds=seconds,
            plans=self.plans,
            precisions=self._choices("precision"),
            prompt_prefixes=self._choices("prompt_prefix"),
            repeats=self.repeats,
        )

    def from_timing(self, outcome: Mapping[str, Any], costs: RunCosts, seconds: float | None) -> Plan:
        """The plan of a search with two clocks, from the baseline's timing.

        Args:
            outcome: Of that timing.
            costs: What runs cost, that timing taken in.
            seconds: Time that is left; None without a limit.
        """
        fixed = Fidelity.of_samples(self.asked) if isinstance(self.asked, int) else None
        if outcome["state"] != State.COMPLETE or not outcome.get("seconds_per_epoch"):
            note = f"The baseline could not be timed, so the plan is a guess: {outcome.get('error')}"
            return Plan(fidelity=fixed or Fidelity.of_samples(UNMEASURED), notes=(note,), spending=Spending.unknown())
        if seconds is None:
            assert fixed is not None, "without a time budget auto is the whole training"
            return Plan(fidelity=fixed, spending=Spending.unknown(seeds=3))
        whole = self._whole(outcome, max(0.0, seconds - FINAL_SECONDS))
        if fixed is None and whole is not None:
            return whole
        return self.estimate(costs, seconds)

    def estimate(self, costs: RunCosts, seconds: float) -> Plan:
        """The plan of a search with two clocks, from what is known about costs.

        Args:
            costs: What runs cost.
            seconds: Time that is left.
        """
        fixed = Fidelity.of_samples(self.asked) if isinstance(self.asked, int) else None
        available = max(0.0, seconds - FINAL_SECONDS)
        plans = [plan for plan in self.plans if too_long(costs, plan, self.budget) is None]
        planned = spend(
            costs,
            self.baseline,
            plans,
            self._drawn(costs, fixed),
            seconds=available - self.repeats * costs.timing_seconds(self.baseline) / 2,
            train_windows=self.windows["train"],
            fidelity=fixed,
        )
        notes: tuple[str, ...] = ()
        if not planned.fits:
            notes = (
                f"The time budget is short: about {planned.spending.trials} trials are expected. "
                "Raise --time_budget for a search that tells more.",
            )
        return Plan(
            fidelity=planned.fidelity,
            trial_seconds=round(costs.timing_seconds(self.baseline), 1),
            trials=planned.spending.trials,
            notes=notes,
            spending=planned.spending,
        )

    def _whole(self, outcome: Mapping[str, Any], available: float) -> Plan | None:
        """The plan of whole training runs, if a dozen of them fit."""
        validation = outcome.get("validation_seconds")
        if not validation or not outcome.get("startup_seconds"):
            return None
        plan = self.from_probe(outcome, available)
        return plan if plan.fidelity.kind == "full" else None

    def _choices(self, name: str) -> list[str]:
        """The values of a setting that the sampler chooses from."""
        knob = self.space.knob(name)
        return [str(value) for value in knob.values] if knob else [str(getattr(self.baseline, name))]

    def _drawn(self, costs: RunCosts, fidelity: Fidelity | None) -> list[RunConfig]:
        """Configurations like those that the sampler will propose: possible, and not hopeless."""
        draw, found = random.Random(self.seed), []
        mapped = parameters(self.space)
        for _ in range(_DRAWN):
            settings = self.space.settings({name: one.draw(draw) for name, one in mapped.items()})
            try:
                config = self.config.replace(**settings)
            except InputError:
                continue
            refused = self.space.exclusion(settings) or too_long(costs, config, self.budget, SAMPLED_TOO_LONG)
            if not refused and not (fidelity and fidelity.refusal(config, self.devices)):
                found.append(config)
        return found
