"""Dates of a data set's rows, and the frequency they have as a pandas offset."""

import re
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

ENDS = 60
"""Rows at an end of a series that tell its frequency where all of them together do not."""

_USUAL_SHARE = 0.9
"""Share of the distances between rows that must be the same for it to be the frequency."""

_DAY_SECONDS = 86_400
_SEASONS: Mapping[str, int] = {"D": 7, "C": 5, "B": 5, "W": 52, "M": 12, "WOM": 12, "LWOM": 12, "Q": 4, "Y": 1}
_PERIODS = {name: pd.Timedelta(days=days) for name, days in {"day": 1, "week": 7, "year": 365.25}.items()}
_NEAR = 0.1
"""How far a season's steps may be from its period, relative to it: a year's 52 weeks are 364 days."""

DIGIT_FORMS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""How a date of digits alone is read, by its length."""


def parse_dates(column: pd.Series) -> pd.DatetimeIndex | None:
    """Dates of a column, in UTC and without a time zone; None if one of them cannot be read.

    Args:
        column: Dates, or texts that pandas can read: as the first one is written, ISO 8601, or day first; or the digits
            of a date, such as 20240131 or 202401, as numbers or texts.
    """
    if column.dtype.kind in "iuf":
        column = column.map("{:.0f}".format, na_action="ignore").astype(str)
    if column.dtype.kind not in "mMb" and column.map(_is_digits).all():
        return _dates_of_digits(column)
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


def _is_digits(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value) is not None


def _dates_of_digits(column: pd.Series) -> pd.DatetimeIndex | None:
    """Dates of texts [rows] of digits alone; None for numbers that count something else."""
    texts = column.str.strip()
    lengths = texts.str.len().unique()
    form = DIGIT_FORMS.get(int(lengths[0])) if len(lengths) == 1 else None
    read = None if form is None else pd.to_datetime(texts, format=form, errors="coerce", utc=True)
    return None if read is None or read.isna().any() else pd.DatetimeIndex(read).tz_localize(None)


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
    days, rest = divmod(usual, pd.Timedelta(days=1))
    if rest:
        return pd.tseries.frequencies.to_offset(usual).freqstr
    weeks, days_over = divmod(days, 7)
    if days_over:
        return f"{days if days > 1 else ''}D"
    return f"{weeks if weeks > 1 else ''}W-{dates[-1].day_name()[:3].upper()}"


def season_name(frequency: str | None) -> str | None:
    """What a season of `season_of` is called: day, week or year."""
    if season_of(frequency) == 1 or frequency is None:
        return None
    offset = pd.tseries.frequencies.to_offset(frequency)
    if isinstance(offset, pd.tseries.offsets.Tick) and pd.Timedelta(offset).total_seconds() < _DAY_SECONDS:
        return "day"
    return "week" if offset.name.split("-")[0] in ("D", "C", "B") else "year"


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


def has_season(dates: pd.DatetimeIndex | None, frequency: str | None) -> bool:
    """Whether rows that are a season of `season_of` apart are a day, week or year apart, in half of the cases at least.

    They are not where rows stop every night, as those of a stock exchange do, or where a season is not a whole number
    of steps.

    Args:
        dates: Dates of the rows, without a time zone.
        frequency: Their pandas offset.
    """
    steps, name = season_of(frequency), season_name(frequency)
    if dates is None or name is None or len(dates) <= steps:
        return False
    periods = (dates[steps:] - dates[:-steps]).to_numpy() / _PERIODS[name].to_timedelta64()
    return bool((np.abs(periods - 1) <= _NEAR).mean() >= 0.5)
