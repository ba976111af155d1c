"""The numeric columns of a file, refusing what cannot be a series."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from timellm.contract.errors import InputError
from timellm.data.dates import DIGIT_FORMS
from timellm.data.diagnosis import missing_date, shown, value_hint
from timellm.data.long_format import is_long, widen
from timellm.data.odd_values import value_notes
from timellm.data.reading import Rows, left_out, read_rows

_SHORTEST_STEP, _LONGEST_STEP = 0.5, 1.5
"""Distances of two rows that count as equal, in median steps: a month is 28 to 31 days."""


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """Numeric columns of one data set, complete and in order.

    Attributes:
        columns: Column names.
        values: Values [rows, columns], float64, without gaps.
        notes: What was changed and what is odd about the dates, as sentences for the user.
        dates: Dates of the rows as they are written [rows].
    """

    columns: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...]
    dates: pd.Series


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_wide(path: Path) -> tuple[Rows, list[str]]:
    """The columns of a file, one of them called date where it has one; a long one is widened.

    Returns:
        The columns, and notes on what was left out or turned round.

    Raises:
        InputError: If the file is not CSV text with commas, or parquet, or has no rows.
    """
    rows, notes = left_out(read_rows(path), path)
    if not is_long(rows.header):
        return rows, notes
    rows, more = widen(rows, path)
    return rows, [*notes, *more]


def read_series(path: Path, *, only: str | None, required: str | None) -> Table:
    """Read a CSV or parquet file with a `date` column and numeric columns.

    Args:
        path: The file.
        only: Read this column alone (features S), or every column.
        required: A column that must be there (the target of S and MS).

    Raises:
        InputError: If the file cannot be read, a column is missing, or a column that is used is not numeric; with
            every problem of the file at once.
    """
    rows, notes = read_wide(path)
    problems, times = _header_problems(rows, path, required)
    names = {position: name for position, name in enumerate(rows.header) if name not in ("date", "")}
    used = [position for position, name in names.items() if position not in times and only in (None, name)]
    problems += _column_problems(rows, used, path)
    if problems:
        raise InputError(problems)
    numbers = pd.DataFrame({names[position]: _numbers(rows.frame[position]) for position in used})
    filled, filling = fill_gaps(numbers, source=path.name)
    dates = rows.frame[rows.header.index("date")]
    notes += [*_date_notes(dates, path), *filling, *value_notes(numbers, path.name)]
    return Table(columns=tuple(numbers.columns), values=filled.to_numpy(), notes=tuple(notes), dates=dates)


def fill_gaps(frame: pd.DataFrame, *, source: str) -> tuple[pd.DataFrame, list[str]]:
    """Fill missing values with the last one before them, leading ones with the first after them.

    Args:
        frame: Numeric columns, each with at least one value.
        source: What the notes call the data.

    Returns:
        The complete frame and notes of what was filled.
    """
    missing = frame.isna()
    counts = missing.sum()
    counts = counts[counts > 0]
    if counts.empty:
        return frame, []
    forward = frame.ffill()
    leading = int(forward.isna().to_numpy().sum())
    shown = ", ".join(f"{name} {count}" for name, count in counts.head(8).items())
    more = f" and {len(counts) - 8} more columns" if len(counts) > 8 else ""
    note = f"{source}: {int(counts.sum())} missing values were filled forward ({shown}{more})"
    note += f", {leading} of them at the start backward." if leading else "."
    return forward.bfill(), [note]


def _header_problems(rows: Rows, path: Path, required: str | None) -> tuple[list[str], set[int]]:
    """What is wrong with the header, and the columns that hold times under another name than `date`."""
    header = list(rows.header)
    listed = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
    problems: list[str] = []
    times: set[int] = set()
    if "date" not in header:
        problem, times = missing_date(header, _first_row(rows), path, rows.header_line)
        problems.append(problem)
    if "" in header:
        problems.append(f"{path}: column {header.index('') + 1} has no name. Name it or remove it.")
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        problems.append(f"{path}: column {name} appears more than once. Rename or remove one.")
    if len(header) < 2 and "" not in header:
        problems.append(f"{path} must have a numeric column beside date, got {listed}. Separate columns with commas.")
    elif required is not None and (required not in header or required == "date"):
        problems.append(f"target {required} is not a column of {path}, which has {listed}. Choose one with --target.")
    return problems, times


def _first_row(rows: Rows) -> list[str]:
    return ["" if pd.isna(value) else str(value) for value in rows.frame.iloc[0]]


def _column_problems(rows: Rows, used: Sequence[int], path: Path) -> list[str]:
    """What keeps the used columns from being numbers; one problem where a second header is the reason."""
    bad = {position: first for position in used if (first := _first_text(rows.frame[position])) is not None}
    problems = [
        f"{path}: column {rows.header[position]} has no value at all. Remove it or fill it."
        for position in used
        if rows.frame[position].isna().all()
    ]
    if len(bad) > 1 and len(bad) == len(used) and set(bad.values()) == {0}:
        text = ",".join(_first_row(rows))
        if not any(_is_text(rows.frame[position].iloc[1:]) for position in used):
            where = f"a second one in {rows.place(0)}: {shown(text)}"
            return [*problems, f"{path} must have one header and then numbers, got {where}. Remove that line."]
    for position, first in bad.items():
        value = str(rows.frame[position].iloc[first])
        problems.append(
            f"{path}: column {rows.header[position]} must be numeric, got {value[:40]!r} in {rows.place(first)}. "
            f"{value_hint(value)}"
        )
    return problems


def _first_text(column: pd.Series) -> int | None:
    """The first row in which a column holds something that is not a finite number."""
    numbers = _numbers(column) if column.dtype != bool else pd.Series(np.nan, column.index)
    bad = (numbers.isna() & column.notna()) | np.isinf(numbers)
    if column.dtype.kind not in "iufb":
        bad &= ~column.astype(str).str.fullmatch(r"\s+")  # a blank field is an empty one
    return int(np.flatnonzero(bad)[0]) if bad.any() else None


def _is_text(column: pd.Series) -> bool:
    return _first_text(column) is not None


def _numbers(column: pd.Series) -> pd.Series:
    """A column as float64, NaN where it holds no number, infinite where that is too large for one."""
    # pandas keeps whole numbers beyond 64 bits as objects, and cannot convert those beyond float64.
    readable = column.astype(str) if column.dtype == object else column
    return pd.to_numeric(readable, errors="coerce").astype("float64")


def _date_notes(dates: pd.Series, path: Path) -> list[str]:
    """What in a file's dates is not in order of time or at equal distances, one note for each kind."""
    times = _times(dates)
    notes = []
    unreadable, rows = np.flatnonzero(np.isnan(times)), np.flatnonzero(~np.isnan(times))
    if unreadable.size:
        first = dates.iloc[unreadable[0]]
        shown = "empty" if pd.isna(first) else repr(str(first)[:40])
        where = f"{_in_rows(unreadable)} ({shown})"
        notes.append(f"{path.name}: the date cannot be read {where}; the rows are used in the file's order.")
    repeated = rows[pd.Series(times[rows]).duplicated()]
    if repeated.size:
        where = _in_rows(repeated)
        notes.append(f"{path.name}: the date of an earlier row is repeated {where}; each counts as a step of its own.")
    # Rows without a date count as steps, so that they make no step beside them look long.
    steps = np.diff(times[rows]) / np.diff(rows)
    return [*notes, *_order_note(steps, rows[1:], path), *_step_note(steps, rows[1:], path)]


def _order_note(steps: np.ndarray, rows: np.ndarray, path: Path) -> list[str]:
    """A note where the rows of a file go back in time."""
    back = rows[steps < 0]
    if not back.size:
        return []
    return [f"{path.name}: row {back[0] + 1} is earlier than the row before it; the rows are used in the file's order."]


def _step_note(steps: np.ndarray, rows: np.ndarray, path: Path) -> list[str]:
    """A note where rows are not at equal distances; those of a calendar's months and years are equal enough."""
    forward = steps > 0
    if not forward.any():
        return []
    ratios = steps / np.median(steps[forward])
    odd = np.flatnonzero(forward & ((ratios < _SHORTEST_STEP) | (ratios > _LONGEST_STEP)))
    if not odd.size:
        return []
    where = f"{_in_rows(rows[odd])} ({ratios[odd[0]]:.3g} times the median)"
    return [
        f"{path.name}: the time since the row before is far from the median step {where}; "
        "the rows are used as if at equal distances."
    ]


def _in_rows(rows: np.ndarray) -> str:
    return f"in {len(rows)} {'row' if len(rows) == 1 else 'rows'}, the first is row {rows[0] + 1}"


def _times(dates: pd.Series) -> np.ndarray:
    """Times of a file's rows [rows], in seconds or in the file's own unit, NaN where a date cannot be read."""
    numbers = _numbers(dates).replace([np.inf, -np.inf], np.nan)
    is_text = numbers.notna().mean() <= 0.5
    times = _dates_of_text(dates) if is_text else _dates_of_digits(numbers)
    if times is None:
        return numbers.to_numpy()
    return (times - times.min()).dt.total_seconds().to_numpy()


def _dates_of_text(dates: pd.Series) -> pd.Series:
    """Dates read in the way that reads the most: that of the first row, ISO 8601 of any length, or day first."""
    readings: list[pd.Series] = []
    for way in ({}, {"format": "ISO8601"}, {"dayfirst": True}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            readings.append(pd.to_datetime(dates, errors="coerce", utc=True, **way))  # type: ignore[call-overload]
        if readings[-1].notna().all():
            break
    return max(readings, key=lambda reading: reading.count())


def _dates_of_digits(numbers: pd.Series) -> pd.Series | None:
    """Dates written as digits alone, such as 20240131; None for numbers that count something else."""
    lengths = {len(f"{end:.0f}") for end in (numbers.min(), numbers.max())}
    form = DIGIT_FORMS.get(lengths.pop()) if len(lengths) == 1 else None
    if form is None or numbers.min() < 0 or (numbers.dropna() % 1).any():
        return None
    texts = numbers.map("{:.0f}".format, na_action="ignore")
    times = pd.to_datetime(texts, format=form, errors="coerce", utc=True)
    return times if times.count() == numbers.count() else None
