"""How a search with two clocks spends its time: on timings, errors, seeds, prompts and controls."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.decide.clocks.seeds import CANDIDATES, can_tell
from search.decide.spend.costs import RunCosts
from search.decide.spend.fidelity import STEP, Fidelity
from timellm.contract.config import RunConfig
from timellm.contract.job import MAX_TIMING_SECONDS

KINDS = ("timings", "errors", "seeds", "prompts", "controls")
"""What time is spent on, in the order of a sentence."""

TOO_LONG = 0.1
"""Share of the time budget that a trial's warm-up and timed steps may take, unless it is the baseline."""
SAMPLED_TOO_LONG = 0.05
"""The same of a trial that the sampler proposes: others may be as good and cheaper to time."""
BASELINE_TOO_LONG = 0.25
"""Share of the budget beyond which the baseline is timed with fewer steps."""
MOST_SAMPLES = 8192
"""Most training windows of an error that `auto` chooses: beyond that, more trials tell more than longer ones."""
FULLNESS, FULLEST = 0.85, 0.95
"""Share of the time that is planned for, because costs are predicted; and where errors would else tell too little."""
ANYHOW = 0.2
"""Share of the sampler's trials that are computed in any way: the others in the fastest that is known, or close."""
TIMING_SECONDS = (5.0, MAX_TIMING_SECONDS)
"""Least and most of the bound on the steady steps of a timing."""
MOST_FOR_A_SEED = 0.15
"""Share of the time that a second seed of the baseline's error may take where not everything fits."""
_FEWEST_TRIALS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Aim:
    """What a search with two clocks should reach, from the most to the least."""

    trials: int
    """Complete trials."""
    sets: int
    """Sets of numbers, each trained once: the baseline's and others."""
    seeds: int
    """Seeds of the baseline's error."""
    samples: int
    """Training windows of an error at least."""
    fullness: float = FULLNESS
    """Share of the time that may be planned for; beyond `FULLNESS`, for no more than its samples."""


AIMS = (
    Aim(trials=12, sets=6, seeds=3, samples=1024),
    Aim(trials=12, sets=5, seeds=3, samples=1024),
    Aim(trials=10, sets=3, seeds=2, samples=512),
    Aim(trials=9, sets=3, seeds=2, samples=256),
    Aim(trials=8, sets=2, seeds=2, samples=256),
    Aim(trials=8, sets=2, seeds=2, samples=256, fullness=FULLEST),
    Aim(trials=8, sets=2, seeds=2, samples=STEP),
)
"""The first that fits the time is taken: after 1,024 windows of the baseline's batch an error can tell something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """The seconds that a plan gives to each kind of run."""

    seconds: Mapping[str, float]
    """By the names of `KINDS`; empty where nothing has been measured."""
    trials: int | None
    """Complete trials that are expected; None where unknown."""
    sets: int | None
    """Sets of numbers whose error is expected to be trained."""
    seeds: int
    """Seeds that the baseline's error is trained with."""

    @property
    def share_of_numbers(self) -> float:
        """Share of the sampler's proposals that search numbers: at most half."""
        if not self.trials or not self.sets:
            return 0.5
        return min(0.5, max(1, self.sets - 1) / max(1, self.trials - 2))

    @classmethod
    def unknown(cls, seeds: int = 2) -> "Spending":
        """Where nothing has been measured."""
        return cls(seconds={}, trials=None, sets=None, seeds=seeds)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"seconds": dict(self.seconds), "trials": self.trials, "sets": self.sets, "seeds": self.seeds}

    def __str__(self) -> str:
        """In words."""
        seeds = f"the baseline's error has {self.seeds} seed{'s' if self.seeds != 1 else ''}"
        if not self.seconds:
            return f"What they cost is unknown until the baseline has been timed; {seeds}."
        shares = ", ".join(f"{self.seconds.get(kind, 0.0):.0f} s on {kind}" for kind in KINDS)
        return f"Planned: about {self.trials} trials over {self.sets} sets of numbers; {seeds}. Predicted: {shares}."


class TimeSpent:
    """Counts what the runs of a search took.

    Args:
        seconds: By kind, of earlier sessions.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict.fromkeys(KINDS, 0.0) | dict(seconds)

    def add(self, kind: str, seconds: float, outcome: Mapping[str, Any]) -> None:
        """Count a run; prompts that an error training was the first to compute are counted separately."""
        memory = outcome.get("prompt_memory") or {}
        prompts = min(seconds, float(memory.get("seconds") or 0.0)) if kind in ("errors", "seeds") else 0.0
        self.seconds["prompts"] += prompts
        self.seconds[kind] += seconds - prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A fidelity, what it costs, and whether everything that was aimed at fits."""

    fidelity: Fidelity
    spending: Spending
    fits: bool


def too_long(costs: RunCosts, config: RunConfig, budget: float | None, share: float = TOO_LONG) -> str | None:
    """Why a trial is hopeless: what it compiles and its warm-up and timed steps alone take too much; None if it is not.

    Args:
        costs: With at least the baseline's timing; without it nothing is called hopeless.
        config: The trial's settings.
        budget: The whole time budget, seconds; None for none.
        share: Of the budget that is too much.
    """
    if budget is None or not costs.is_measured:
        return None
    compiling = costs.compiling_seconds(config)
    seconds = compiling + costs.steps_seconds(config)
    if seconds <= share * budget:
        return None
    what = "compilation, warm-up" if compiling else "warm-up"
    return (
        f"its {what} and timed steps are predicted to take {seconds:.0f} s, "
        f"more than {'a tenth' if share == TOO_LONG else f'{100 * share:.0f} %'} of the time budget ({budget:.0f} s)"
    )


def timing_seconds(budget: float | None) -> float:
    """Bound on the steady steps of a timing, seconds: a fortieth of the time budget, 5 s to a minute.

    Args:
        budget: The whole time budget, seconds; None for none.
    """
    low, high = TIMING_SECONDS
    return high if budget is None else min(high, max(low, budget / 40))


def spend(
    costs: RunCosts,
    baseline: RunConfig,
    plans: Sequence[RunConfig],
    drawn: Sequence[RunConfig],
    *,
    seconds: float,
    train_windows: int,
    fidelity: Fidelity | None = None,
) -> Planned:
    """The largest fidelity at which what a search should reach fits its time.

    Args:
        costs: What runs cost, with the baseline's timing.
        baseline: The baseline, which has been timed already.
        plans: What is tried after it.
        drawn: Configurations like those that the sampler will propose.
        seconds: Time that is left.
        train_windows: Windows of the training split.
        fidelity: What the user chose; None chooses.
    """
    available = max(0.0, seconds)
    largest = min(MOST_SAMPLES, train_windows) // STEP * STEP
    for aim in AIMS:
        most = largest if aim.fullness == FULLNESS else aim.samples
        candidates = [fidelity] if fidelity else [Fidelity.of_samples(n) for n in _falling(most, aim.samples)]
        for candidate in candidates:
            parts = _parts(costs, baseline, plans, drawn, aim, candidate)
            if sum(parts.values()) <= aim.fullness * available:
                return Planned(fidelity=candidate, spending=_spending(parts, aim), fits=True)
    aim, last = AIMS[-1], fidelity or Fidelity.of_samples(min(STEP, max(1, train_windows)))
    parts = _parts(costs, baseline, plans, drawn, aim, last)
    share = min(1.0, FULLNESS * available / max(1e-9, sum(parts.values())))
    one = costs.error_seconds(baseline, last, with_prompts=False)
    seeds = aim.seeds if one <= MOST_FOR_A_SEED * available else 1
    fewer = Aim(trials=max(_FEWEST_TRIALS, int(share * aim.trials)), sets=aim.sets, seeds=seeds, samples=STEP)
    return Planned(fidelity=last, spending=_spending(parts, fewer), fits=False)


def _falling(largest: int, least: int) -> list[int]:
    """Samples from many to few, each a tenth less than the one before, all multiples of `STEP`."""
    found, count = [], max(largest, least)
    while count >= least:
        found.append(count)
        count = min(count - STEP, int(count * 0.9)) // STEP * STEP
    return found if found and found[-1] == least else [*found, least]


def _parts(
    costs: RunCosts,
    baseline: RunConfig,
    plans: Sequence[RunConfig],
    drawn: Sequence[RunConfig],
    aim: Aim,
    fidelity: Fidelity,
) -> dict[str, float]:
    """Seconds of each kind of run that reaching an aim takes, the baseline's own timing not counted."""
    one = costs.error_seconds(baseline, fidelity, with_prompts=False)
    anyhow = _typical([costs.timing_seconds(config) for config in drawn]) or costs.timing_seconds(baseline) / 2
    fast = _typical([costs.timing_seconds(costs.way(config)) for config in drawn]) or anyhow
    timing = ANYHOW * anyhow + (1 - ANYHOW) * fast
    other = _typical([costs.error_seconds(config, fidelity, with_prompts=False) for config in drawn]) or one
    planned = [costs.timing_seconds(config) for config in plans]
    sampled = max(aim.trials - 1 - len(planned), math.ceil(aim.trials / 2))
    again = (aim.seeds - 1) * (one + (CANDIDATES * other if can_tell(fidelity.apply(baseline)) else 0.0))
    return {
        "timings": sum(planned) + sampled * timing,
        "errors": one + (aim.sets - 1) * other,
        "seeds": again,
        "prompts": costs.prompt_seconds(baseline, fidelity),
        "controls": costs.control_seconds(fidelity),
    }


def _spending(parts: Mapping[str, float], aim: Aim) -> Spending:
    return Spending(
        seconds={kind: round(value, 1) for kind, value in parts.items()},
        trials=aim.trials,
        sets=aim.sets,
        seeds=aim.seeds,
    )


def _typical(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
