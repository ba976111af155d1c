"""A user's data as one table of numbers: wide or long DataFrames, and files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data.dates import parse_dates
from timellm.data.embedded import EMBEDDED
from timellm.data.reading import left_out, read_rows
from timellm.data.tables import fill_gaps
from timellm.forecasting.horizon import readable_dates

LONG = ("unique_id", "ds", "y")
"""Columns of a long frame, the convention of neuralforecast and statsforecast."""

DATE_NAMES = ("ds", "date")
"""What the dates of a wide frame are called."""


@dataclass(frozen=True, eq=False, slots=True)
class Panel:
    """Series on common dates.

    Attributes:
        dates: Date of each row.
        columns: Names of the series.
        values: Values [rows, columns], float64, own units, without gaps.
        source: What messages call the data.
        notes: What was filled, as sentences for the user.
    """

    dates: pd.DatetimeIndex
    columns: tuple[str, ...]
    values: np.ndarray
    source: str
    notes: tuple[str, ...] = ()

    def chosen(self, columns: tuple[str, ...]) -> "Panel":
        """The same with these columns alone, in this order."""
        positions = [self.columns.index(name) for name in columns]
        return Panel(self.dates, columns, self.values[:, positions], self.source, self.notes)


def panel_of(frame: Any, source: str = "The data") -> Panel:
    """Read a DataFrame, wide (`ds` or `date`, and a column per series) or long (`unique_id, ds, y`).

    Args:
        frame: The DataFrame.
        source: What messages call it.

    Raises:
        InputError: If it is no DataFrame, its dates or values cannot be read, series end in a gap, or long series
            have different dates.
    """
    if not isinstance(frame, pd.DataFrame) or frame.columns.empty:
        raise InputError(
            f"{source} must be a pandas DataFrame with columns: ds or date and one for each series, or "
            f"{', '.join(LONG)}; got {_shown(frame)}."
        )
    if frame.empty:
        raise InputError(f"{source} must have one row per time step, got no rows.")
    if not frame.columns.is_unique:
        again = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{source} must have each column once, got {again} more than once. Rename or remove one.")
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    wide = _from_long(frame, source) if "unique_id" in frame.columns else _from_wide(frame, source)
    return _panel(*wide, source)


def panel_of_file(path: Path) -> Panel:
    """Read a CSV or parquet file, wide or long.

    Raises:
        InputError: As `panel_of`, or if the file cannot be read.
    """
    rows, _ = left_out(read_rows(path), path)
    return panel_of(rows.frame.set_axis(list(rows.header), axis=1), str(path))


def panel_of_training(config: RunConfig, path: Path) -> Panel:
    """Read the data that a checkpoint was trained on.

    Args:
        config: Settings of the training.
        path: Where its file lay.
    """
    embedded = EMBEDDED.get(config.data)
    if embedded is None:
        return panel_of_file(path)
    table = embedded.read(embedded.locate())
    dates = parse_dates(table.dates)
    assert dates is not None
    return Panel(dates, table.columns, table.values, config.data, table.notes)


def _from_wide(frame: pd.DataFrame, source: str) -> tuple[pd.DatetimeIndex, pd.DataFrame]:
    names = [name for name in DATE_NAMES if name in frame.columns]
    if len(names) != 1:
        hint = " Bring the index into a column with reset_index." if isinstance(frame.index, pd.DatetimeIndex) else ""
        shown = ", ".join(frame.columns[:12])
        raise InputError(f"{source} must have one column of dates named ds or date, got the columns {shown}.{hint}")
    dates = readable_dates(frame[names[0]], source)
    values = frame.drop(columns=names).reset_index(drop=True)
    if values.columns.empty:
        raise InputError(f"{source} must have a column of numbers beside {names[0]}, got none.")
    return dates, values


def _from_long(frame: pd.DataFrame, source: str) -> tuple[pd.DatetimeIndex, pd.DataFrame]:
    if set(frame.columns) != set(LONG):
        raise InputError(
            f"{source} must have the columns {', '.join(LONG)} in its long form, got {', '.join(frame.columns[:12])}. "
            "Rename or drop what differs."
        )
    parts, dates = {}, None
    for name, rows in frame.groupby("unique_id", sort=False):
        found = readable_dates(rows["ds"], f"{source}, series {name},")
        if dates is not None and not found.equals(dates):
            raise InputError(
                f"{source} must have the same dates in every series, got {len(dates)} rows from {dates[0]} to "
                f"{dates[-1]}, and in series {name} {len(found)} from {found[0]} to {found[-1]}. Cut them to what they "
                "share."
            )
        dates = found
        parts[str(name)] = rows["y"].reset_index(drop=True)
    if dates is None:
        raise InputError(f"{source} must name a series in unique_id, got none.")
    return dates, pd.DataFrame(parts)


def _panel(dates: pd.DatetimeIndex, values: pd.DataFrame, source: str) -> Panel:
    problems = []
    numbers = {}
    for name in values.columns:
        numbers[name] = column = _numbers(values[name])
        if bool((column.isna() & values[name].notna()).any()) or np.isinf(column).any():
            row = int(np.flatnonzero((column.isna() & values[name].notna()) | np.isinf(column))[0])
            shown = str(values[name].iloc[row])[:40]
            problems.append(f"{source}: column {name} must be numeric, got {shown!r} in row {row + 1}. Correct it.")
        elif column.isna().iloc[-1]:
            missing = int(column.isna().to_numpy()[::-1].cumprod().sum())
            problems.append(
                f"{source}: column {name} must have a value in its last row, and its last {missing} have none. "
                "Fill them, or cut the rows off."
            )
    if problems:
        raise InputError(problems)
    filled, notes = fill_gaps(pd.DataFrame(numbers), source=source)
    return Panel(dates, tuple(filled.columns), filled.to_numpy(), source, tuple(notes))


def _numbers(column: pd.Series) -> pd.Series:
    if column.dtype == bool:
        return pd.Series(np.nan, column.index)
    return pd.to_numeric(column, errors="coerce").astype("float64").reset_index(drop=True)


def _shown(value: Any) -> str:
    if isinstance(value, pd.DataFrame):
        return "a DataFrame without columns"
    return f"a {type(value).__name__}" if value is not None else "nothing"
