"""Dates of a data set's rows, and the frequency they have as a pandas offset."""

import warnings
from collections.abc import Mapping

import pandas as pd

ENDS = 60
"""Rows at an end of a series that tell its frequency where all of them together do not."""

_USUAL_SHARE = 0.9
"""Share of the distances between rows that must be the same for it to be the frequency."""

_DAY_SECONDS = 86_400
_SEASONS: Mapping[str, int] = {"D": 7, "C": 5, "B": 5, "W": 52, "M": 12, "B-M": 12, "Q": 4, "Y": 1}


def parse_dates(column: pd.Series) -> pd.DatetimeIndex | None:
    """Dates of a column, in UTC and without a time zone; None if one of them cannot be read.

    Args:
        column: Dates, or texts that pandas can read: as the first one is written, ISO 8601, or day first; or whole
            numbers that are the digits of a date, such as 20240131.
    """
    if column.dtype.kind in "iuf":
        column = column.map("{:.0f}".format, na_action="ignore")
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
