"""A configuration against the baseline: how much faster, how much more accurate, and how sure."""

import math
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE

MIN_REPEATS = 3
"""Least number of repeats for an interval to be based on them instead of on the timing within one run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """A ratio and its 95 % interval; the ends are NaN where nothing is known about the spread."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether the interval is known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def speedup_ratio(row: pd.Series, reference: pd.Series) -> Ratio:
    """The reference's seconds_per_epoch over the row's.

    Args:
        row: A row of `results.analysis.pareto.average_repeats`.
        reference: The row that ratios refer to.

    Returns:
        The ratio; its interval joins those of both times on the log scale.
    """
    half = math.hypot(_log_half_width(row), _log_half_width(reference)) if not _same(row, reference) else 0.0
    value = float(reference[SECONDS_PER_EPOCH]) / float(row[SECONDS_PER_EPOCH])
    return Ratio(value=value, low=value * math.exp(-half), high=value * math.exp(half))


def mse_change(row: pd.Series, reference: pd.Series) -> tuple[float, float]:
    """Change of val_mse against the reference, and its standard deviation over seeds.

    Args:
        row: A row of `results.analysis.pareto.average_repeats`.
        reference: The row that ratios refer to.

    Returns:
        Both in percent of the reference, NaN where one has no error; the deviation is NaN unless both were run with
        two seeds or more.
    """
    if pd.isna(row[VAL_MSE]) or pd.isna(reference[VAL_MSE]):
        return math.nan, math.nan
    change = 100 * (float(row[VAL_MSE]) / float(reference[VAL_MSE]) - 1)
    relative = [
        float(side["val_mse_std"]) / float(side[VAL_MSE]) if pd.notna(side["val_mse_std"]) else math.nan
        for side in (row, reference)
    ]
    return change, 100 * (relative[0] if _same(row, reference) else math.hypot(*relative))


def _same(row: pd.Series, reference: pd.Series) -> bool:
    return row["trial_id"] == reference["trial_id"]


def _log_half_width(row: pd.Series) -> float:
    """Half of the 95 % interval of log seconds_per_epoch; NaN if unknown."""
    repeats = int(row["repeats"])
    if repeats >= MIN_REPEATS:
        deviation = float(row["seconds_per_epoch_std"]) / float(row[SECONDS_PER_EPOCH])
        return float(stats.t.ppf(0.975, repeats - 1)) * deviation / math.sqrt(repeats)
    low, high = row["seconds_per_epoch_low"], row["seconds_per_epoch_high"]
    if pd.isna(low) or pd.isna(high) or low <= 0:
        return math.nan
    return math.log(float(high) / float(low)) / 2
