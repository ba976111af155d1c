"""The long format of other forecasting tools: one row for each series and time, `unique_id, ds, y`."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from timellm.contract.errors import InputError
from timellm.data.diagnosis import value_hint
from timellm.data.reading import Rows

LONG_COLUMNS = ("unique_id", "ds", "y")


def is_long(header: Sequence[str]) -> bool:
    """Whether a file has the three columns of the long format and no column date."""
    return set(LONG_COLUMNS) <= set(header) and "date" not in header


def widen(rows: Rows, path: Path) -> tuple[Rows, list[str]]:
    """One column for each series, one row for each time.

    Args:
        rows: Columns unique_id, ds and y.
        path: The file's name, for the messages.

    Returns:
        The same values with columns date and the series in order of appearance, empty where a series has no value at
        a time, and a note.

    Raises:
        InputError: For other columns, a series or time that is empty, one that is repeated, and a `y` that is not a
            number; with all of them at once.
    """
    others = [name for name in rows.header if name not in LONG_COLUMNS]
    problems = []
    if others or len(rows.header) != len(LONG_COLUMNS):
        named = ", ".join(others) or "one of them twice"
        problems.append(f"{path}: the long format must have the columns unique_id, ds and y alone, got {named}. "
                        "Remove the others.")  # fmt: skip
        raise InputError(problems)
    series, times, values = (rows.frame[rows.header.index(name)] for name in LONG_COLUMNS)
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    for column, bad, what in (
        ("unique_id", series.isna(), "a name in every row"),
        ("ds", times.isna(), "a date in every row"),
    ):
        if bad.any():
            problems.append(
                f"{path}: column {column} must hold {what}, got none in {rows.place(_first(bad))}. Fill it."
            )
    if (bad := numbers.isna() & values.notna()).any():
        value = str(values.iloc[_first(bad)])
        place = rows.place(_first(bad))
        problems.append(f"{path}: column y must be numeric, got {value[:40]!r} in {place}. {value_hint(value)}")
    names = series.astype(str)
    if not problems and (repeated := pd.DataFrame({"id": names, "ds": times}).duplicated()).any():
        at = _first(repeated)
        problems.append(
            f"{path}: a series must have one value for each time, got another of {names.iloc[at]} at {times.iloc[at]} "
            f"in {rows.place(at)}. Remove one."
        )
    if problems:
        raise InputError(problems)
    return _pivot(names, times, numbers, rows, path)


def _pivot(names: pd.Series, times: pd.Series, numbers: pd.Series, rows: Rows, path: Path) -> tuple[Rows, list[str]]:
    codes, order = pd.factorize(names)
    wide = pd.DataFrame({"ds": times, "id": codes, "y": numbers}).pivot(index="ds", columns="id", values="y")
    dates = pd.Series(wide.index)
    read = pd.to_datetime(dates, errors="coerce", utc=True, format="mixed" if dates.dtype.kind not in "iufM" else None)
    # Texts sort by letter; by time where all of them can be read, in the file's order otherwise.
    wide = wide.iloc[read.argsort(kind="stable")] if read.notna().all() else wide.reindex(times.unique())
    counts = wide.notna().sum()
    note = f"{path.name}: the long format was read as {len(order)} columns of {len(wide)} rows"
    if (counts < len(wide)).any():
        note += f"; {int((counts < len(wide)).sum())} of them have no value at some of the times"
    frame = wide.reset_index().set_axis(range(len(order) + 1), axis=1)
    return Rows(("date", *(str(name).strip() for name in order)), frame, b""), [f"{note}."]


def _first(bad: pd.Series) -> int:
    return int(bad.to_numpy().argmax())
