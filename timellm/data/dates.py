"""Dates of a data set's rows, and the frequency they have as a pandas offset."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from timellm.contract.config import RunConfig
from timellm.data.series import data_file
from timellm.data.tables import is_parquet

ENDS = 60
"""Rows at an end of a series that tell its frequency where all of them together do not."""

_USUAL_SHARE = 0.9
"""Share of the distances between rows that must be the same for it to be the frequency."""

_DAY_SECONDS = 86_400
_SEASONS: Mapping[str, int] = {"D": 7, "C": 5, "B": 5, "W": 52, "M": 12, "B-M": 12, "Q": 4, "Y": 1}


def dates_of(config: RunConfig) -> pd.DatetimeIndex | None:
    """Dates of the rows of a run's data set, without a time zone; None where they cannot be read."""
    path = data_file(config)
    if config.data == "nyc-weather":
        hours = pd.to_datetime(pd.read_csv(path, usecols=["time_hour"])["time_hour"], utc=True)
        return pd.date_range(hours.min(), hours.max(), freq="h").tz_localize(None)
    return parse_dates(read_date_column(path))


def read_date_column(path: Path) -> pd.Series:
    """The column `date` of a CSV or parquet file, as it stands there."""
    if is_parquet(path):
        return pd.read_parquet(path, columns=["date"])["date"]
    return pd.read_csv(path, usecols=["date"], encoding="utf-8-sig", dtype=str)["date"]


def parse_dates(column: pd.Series) -> pd.DatetimeIndex | None:
    """Dates of a column, in UTC and without a time zone; None if one of them cannot be read.

    Args:
        column: Dates, or texts that pandas can read: as the first one is written, ISO 8601, or day first.
    """
    for way in ({}, {"format": "ISO8601"}, {"dayfirst": True}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                read = pd.to_datetime(column, utc=True, **way)  # type: ignore[call-overload]
            except (ValueError, TypeError, OverflowError):
                continue
        if read.notna().all():
            return pd.DatetimeIndex(read).tz_localize(None)
    return None


def infer_frequency(dates: pd.DatetimeIndex | None) -> str | None:
    """The pandas offset between rows: of all of them, or else of an end of them, or the distance most of them have.

    Args:
        dates: Dates of the rows in order, without a time zone.

    Returns:
        A name such as `h`, `15min`, `B` or `ME`; None where rows have none.
    """
    if dates is None or len(dates) < 3:
        return None
    for part in (dates, dates[-ENDS:], dates[:ENDS]):
        try:
            if (found := pd.infer_freq(part)) is not None:
                return found
        except ValueError:
            continue
    steps = pd.Series(dates[1:] - dates[:-1])
    usual = steps.mode()[0]
    if usual <= pd.Timedelta(0) or (steps == usual).mean() < _USUAL_SHARE:
        return None
    return pd.tseries.frequencies.to_offset(usual).freqstr


def season_of(frequency: str | None) -> int:
    """Steps after which a series of a frequency usually repeats: a day, week or year of them; 1 where none is known.

    Args:
        frequency: A pandas offset, such as `h` (24 steps), `15min` (96), `D` (7), `ME` (12).
    """
    if frequency is None:
        return 1
    offset = pd.tseries.frequencies.to_offset(frequency)
    if isinstance(offset, pd.tseries.offsets.Tick):
        seconds = pd.Timedelta(offset).total_seconds()
        if seconds < _DAY_SECONDS:
            return max(1, round(_DAY_SECONDS / seconds))
    name = offset.name.split("-")[0]
    per_year = _SEASONS.get(name.removesuffix("E").removesuffix("S").removeprefix("B") or "B", 1)
    return max(1, per_year // offset.n) if per_year > 1 else 1
