"""Numbers as words, the same in terminal, report and files."""

import math

from results.analysis.judgement import Difference, Word
from results.analysis.ratios import Ratio
from timellm.contract.words import MISSING

NOT_TELLING = "not telling"
"""Stands where an error is not telling, so that no change of it is claimed."""


def factor(value: float) -> str:
    """A ratio with three figures: `14.1`, `3.12`, `0.87`."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def multiple(ratio: Ratio) -> str:
    """A speed-up and its interval: `3.10× as fast (95 % interval 2.95 to 3.26)`."""
    words = f"{factor(ratio.value)}× as fast"
    return f"{words} (95 % interval {factor(ratio.low)} to {factor(ratio.high)})" if ratio.is_known else words


def percent(value: float) -> str:
    """A signed change: `+1.3 %`, `−0.4 %`."""
    if not math.isfinite(value):
        return MISSING
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{abs(value):.1f} %"


def signed(value: float) -> str:
    """A number with three decimals and its sign; zero has none."""
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", "−")


def difference_words(change: float, difference: Difference | None) -> str:
    """A change of error in percent with its interval and what can be said about it.

    Returns:
        Such as `+0.4 % (95 % interval −0.9 to +1.7 %: no worse than 2 %)`, or `+1.3 % (not shown)` where no repeats
        tell its noise.
    """
    if difference is None or not math.isfinite(difference.low):
        return f"{percent(change)} ({Word.NOT_SHOWN})"
    low, high = (100 * (end - 1) for end in (difference.low, difference.high))
    interval = f"95 % interval {percent(low).removesuffix(' %')} to {percent(high)}"
    return f"{percent(difference.percent)} ({interval}: {difference.word})"


def error_change_words(change: float, difference: Difference | None, *, is_same: bool, is_telling: bool) -> str:
    """What can be said about an error beside the reference's.

    Args:
        change: In percent.
        difference: Over the seeds that both were trained with; None where they share none.
        is_same: Whether both have the same numbers.
        is_telling: Whether errors tell anything.
    """
    if is_same:
        return "the same numbers"
    return difference_words(change, difference) if is_telling else NOT_TELLING


def weight_words(weight: float) -> str:
    """What a time weight trades, in one sentence."""
    return f"At time weight {weight:g}, five times faster makes up for {100 * (5**weight - 1):.1f} % more MSE."
