"""Dates of a history and of what follows it, by pandas offsets: hours, business days, ends of months."""

from typing import Any

import pandas as pd

from timellm.contract.errors import InputError
from timellm.data.dates import infer_frequency, parse_dates


def readable_dates(column: pd.Series, source: str) -> pd.DatetimeIndex:
    """The dates of rows, as they are: each once, in order, without a time zone.

    Args:
        column: Dates or texts.
        source: What messages call the data.

    Raises:
        InputError: If a date cannot be read, has a time zone, is repeated, or is earlier than the one before it.
    """
    if pd.api.types.is_integer_dtype(column.dtype):
        column = column.astype(str)
    if has_time_zone(column):
        raise InputError(
            f"{source} must have dates without a time zone, got {column.iloc[0]}. "
            "Convert them to one local time first, such as with dt.tz_convert(...).dt.tz_localize(None)."
        )
    dates = None if column.isna().any() else parse_dates(column)
    if dates is None:
        raise InputError(f"{source} must have a date in every row that pandas can read, got {_unreadable(column)}.")
    repeated = dates[dates.duplicated()]
    if len(repeated):
        raise InputError(f"{source} must have each date once, got {repeated[0]} repeated. Remove or merge its rows.")
    if not dates.is_monotonic_increasing:
        raise InputError(f"{source} must be in order of time, but it is not. Sort its rows by their date.")
    return dates


def has_time_zone(column: pd.Series) -> bool:
    """Whether dates, or texts of dates, name a time zone."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return True
    if column.empty or pd.api.types.is_datetime64_dtype(column.dtype):
        return False
    first: Any = column.iloc[0]
    if isinstance(first, str):
        try:
            first = pd.Timestamp(first)
        except ValueError:
            return False
    return getattr(first, "tzinfo", None) is not None


def known_frequency(trained: str | None, given: str | None, dates: pd.DatetimeIndex) -> str:
    """The frequency that dates are held against: the user's, or else the training's, or else their own.

    Raises:
        InputError: If the user's is not a pandas offset, or no frequency is known.
    """
    if given is not None:
        try:
            return pd.tseries.frequencies.to_offset(given).freqstr
        except ValueError as error:
            raise InputError(f"freq must be a pandas offset such as h, 15min, B or ME, got {given!r}.") from error
    frequency = trained or infer_frequency(dates)
    if frequency is None:
        raise InputError(
            "Dates must have a frequency, and neither those of the training nor these have one. Name it with --freq."
        )
    return frequency


def check_frequency(dates: pd.DatetimeIndex, frequency: str, source: str) -> None:
    """Refuse dates that are not exactly on a frequency.

    Raises:
        InputError: With the first date that is off it.
    """
    expected = pd.date_range(dates[0], periods=len(dates), freq=frequency)
    if dates.equals(expected):
        return
    number = next(number for number, (found, wanted) in enumerate(zip(dates, expected, strict=True)) if found != wanted)
    after = f" after {dates[number - 1]}" if number else ""
    raise InputError(
        f"{source} must have dates on the training frequency {frequency}, got {dates[number]}{after} in row "
        f"{number + 1}, where {expected[number]} belongs. Bring them to it (DataFrame.asfreq), or name another with "
        "--freq."
    )


def following_dates(last: pd.Timestamp, frequency: str, count: int) -> pd.DatetimeIndex:
    """The next dates after one, by the calendar: months end on their own last day, business days skip weekends."""
    return pd.date_range(last, periods=count + 1, freq=frequency)[1:]


def _unreadable(column: pd.Series) -> str:
    for number, value in enumerate(column):
        if pd.isna(value):
            return f"none in row {number + 1}"
        if parse_dates(pd.Series([value])) is None:
            return f"{str(value)[:40]!r} in row {number + 1}"
    return "dates that are written in several ways"
