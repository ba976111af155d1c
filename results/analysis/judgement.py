"""What can be said about differences of error: their noise, intervals, and three words.

Errors are compared on a logarithmic scale, where a difference is a share. Trainings of one set of numbers differ in
their seed alone; their spread, pooled over every set that has repeats, is the noise of an error. Differences are taken
between trainings of the same seeds and windows, so that what a seed does to both sides cancels: an additive model of
set and seed (two-way analysis of variance without interaction) gives the noise that is left.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

Repeats = Mapping[str, Mapping[int, float]]
"""Validation MSE of every set of numbers by its key, then by seed, all over the same windows."""

TOLERANCE = 0.02
"""Share by which an error may be higher and still counts as no worse."""

CONFIDENCE = 0.975
"""Confidence of each end of a difference's interval; both together make 95 %. Candidates that were chosen
by their error make it a little too narrow: "no worse" is then wrong in 3 to 4 % at worst (benchmarks/judgement.md)."""

MIN_STEPS = 32
"""Optimizer steps below which no error tells anything."""

UNKNOWN_SPREAD = 0.10
"""Spread that is assumed while no set of numbers has repeats: five times the largest that was measured between
seeds (benchmarks/quality.md)."""

MIN_PAIRED_DEGREES = 2
"""Degrees of freedom from which the noise of paired differences is used instead of the whole spread."""


class Word(StrEnum):
    """What can be said about a difference of error."""

    NO_WORSE = "no worse than 2 %"
    WORSE = "worse"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation of log error, and its degrees of freedom."""

    deviation: float
    degrees: int

    def quantile(self, level: float = CONFIDENCE) -> float:
        """Student's quantile times the deviation."""
        return float(special.stdtrit(self.degrees, level)) * self.deviation


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How much higher one error is than another, as ratios; the ends are NaN where the noise is not known."""

    ratio: float
    """Error over the baseline's, mean over the seeds on the logarithmic scale."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""
    seeds: tuple[int, ...]
    """Seeds with which both were trained, the basis of the ratio."""
    word: Word
    """What can be said."""

    @property
    def percent(self) -> float:
        """The difference in percent."""
        return 100 * (self.ratio - 1)


@dataclass(frozen=True, slots=True)
class Telling:
    """Whether errors tell anything, and why."""

    holds: bool
    reason: str
    """One sentence."""


def pooled_spread(repeats: Repeats) -> Spread | None:
    """Standard deviation of log error over seeds, pooled over every set of numbers that has repeats.

    Args:
        repeats: Validation MSE by set of numbers and seed.

    Returns:
        The spread; None where no set has two seeds.
    """
    logs = [np.log(list(errors.values())) for errors in repeats.values() if len(errors) > 1]
    degrees = sum(len(values) - 1 for values in logs)
    if not degrees:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in logs)
    return Spread(math.sqrt(squares / degrees), degrees)


def paired_spread(repeats: Repeats) -> Spread | None:
    """What is left of that spread in comparisons of the same seeds: residual of the additive model of set and seed.

    Returns:
        The spread; None where the sets with repeats share too few seeds to tell.
    """
    entries = [
        (name, seed, math.log(error))
        for name, errors in repeats.items()
        if len(errors) > 1
        for seed, error in errors.items()
    ]
    if not entries:
        return None
    names, seeds = (list(dict.fromkeys(column)) for column in (*zip(*entries, strict=True),)[:2])
    design = np.zeros((len(entries), len(names) + len(seeds)))
    for row, (name, seed, _) in enumerate(entries):
        design[row, names.index(name)] = design[row, len(names) + seeds.index(seed)] = 1.0
    logs = np.array([log for *_, log in entries])
    solution, _, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
    degrees = len(entries) - int(rank)
    if degrees < 1:
        return None
    return Spread(math.sqrt(float(((logs - design @ solution) ** 2).sum()) / degrees), degrees)


def difference(
    repeats: Repeats, candidate: str, baseline: str, *, chosen_by: int | None = None, tolerance: float = TOLERANCE
) -> Difference | None:
    """How much higher the candidate's error is than the baseline's, over the seeds that both were trained with.

    Args:
        repeats: Validation MSE by set of numbers and seed, all of the same windows.
        candidate: Key of a set of numbers.
        baseline: Key of the set it is compared with.
        chosen_by: Seed whose errors the candidate was chosen by. The best of many is lucky there, so this seed is left
            out where others remain, and alone it can show that the candidate is worse, never that it is not.
        tolerance: Share by which an error may be higher and still counts as no worse.

    Returns:
        Ratio, interval and word: `no worse` where the upper end is within the tolerance, `worse` where the lower
        end is above 1, otherwise `not shown`. None where the two share no seed.
    """
    if candidate not in repeats or baseline not in repeats:
        return None
    shared = tuple(sorted(set(repeats[candidate]) & set(repeats[baseline])))
    if not shared:
        return None
    fair = tuple(seed for seed in shared if seed != chosen_by) or shared
    logs = [math.log(repeats[candidate][seed] / repeats[baseline][seed]) for seed in fair]
    centre = sum(logs) / len(logs)
    if candidate == baseline:
        return Difference(ratio=1.0, low=1.0, high=1.0, seeds=shared, word=Word.NO_WORSE)
    spread = _noise(repeats)
    if spread is None:
        return Difference(ratio=math.exp(centre), low=math.nan, high=math.nan, seeds=fair, word=Word.NOT_SHOWN)
    half = spread.quantile() * math.sqrt(2 / len(logs))
    word = Word.NOT_SHOWN
    if centre + half <= math.log1p(tolerance) and fair != (chosen_by,):
        word = Word.NO_WORSE
    elif centre - half > 0:
        word = Word.WORSE
    ratio, low, high = (math.exp(value) for value in (centre, centre - half, centre + half))
    return Difference(ratio=ratio, low=low, high=high, seeds=fair, word=word)


def error_interval(repeats: Repeats, numbers: str) -> tuple[float, float] | None:
    """The 95 % interval of one set's error over seeds, from the pooled spread.

    Returns:
        Its ends, scaled units squared: the mean over many seeds is between them. None where no set has repeats.
    """
    spread = pooled_spread(repeats)
    if spread is None or not repeats.get(numbers):
        return None
    logs = np.log(list(repeats[numbers].values()))
    half = spread.quantile(0.975) / math.sqrt(len(logs))
    return math.exp(logs.mean() - half), math.exp(logs.mean() + half)


def is_telling(
    error: float, steps: float | None, naive: Mapping[str, float], spread: Spread | None, who: str = "the baseline"
) -> Telling:
    """Whether an error tells anything: it is below every naive control by more than its spread, after enough steps.

    Args:
        error: Validation MSE, mean over its seeds.
        steps: Optimizer steps of its training; None if not known.
        naive: Validation MSE of the forecasts that need no training, by name, over the same windows.
        spread: Of log error over seeds; None where no set has repeats: `UNKNOWN_SPREAD` is used then.
        who: Whose error it is, as the reason names it.
    """
    if steps is not None and steps < MIN_STEPS:
        made = f"{who} made {steps:.0f} optimizer steps, but at least {MIN_STEPS} are needed"
        return Telling(False, f"Errors are not telling: {made}.")
    if not naive:
        return Telling(False, f"Errors are not telling: {who} was not compared with forecasts that need no training.")
    name = min(naive, key=lambda control: naive[control])
    margin = spread.deviation if spread is not None else UNKNOWN_SPREAD
    below = math.log(naive[name] / error)
    words = f"the spread of its seeds, {100 * math.expm1(margin):.1f} %"
    if spread is None:
        words = f"the {100 * UNKNOWN_SPREAD:.0f} % that are required while only one seed was trained"
    place = f"{100 * abs(math.expm1(-below)):.1f} % {'below' if below > 0 else 'above'} the forecast '{name}'"
    if below > margin:
        return Telling(True, f"Errors are telling: {who}'s is {place}, more than {words}.")
    return Telling(False, f"Errors are not telling: {who}'s is {place}, and must be below it by more than {words}.")


def mean_error(errors: Iterable[float]) -> float:
    """Geometric mean of errors, as differences are taken on the logarithmic scale."""
    return math.exp(float(np.mean(np.log(list(errors)))))


def _noise(repeats: Repeats) -> Spread | None:
    """The noise of a paired difference; the whole spread, which is at least that, where pairs are too few to tell."""
    paired = paired_spread(repeats)
    if paired is not None and paired.degrees >= MIN_PAIRED_DEGREES:
        return paired
    return pooled_spread(repeats)
