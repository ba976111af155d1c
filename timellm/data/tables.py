"""Reading a CSV file into numbers, refusing what cannot be a series."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from timellm.contract.errors import InputError

_HEADER_LINES = 1
_ENCODING = "utf-8-sig"
_SHORTEST_STEP, _LONGEST_STEP = 0.5, 1.5
"""Distances of two rows that count as equal, in median steps: a month is 28 to 31 days."""
_DIGITS = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""How a date of digits alone is read, by its length."""


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """Numeric columns of one data set, complete and in order.

    Attributes:
        columns: Column names.
        values: Values [rows, columns], float64, without gaps.
        notes: What was changed and what is odd about the dates, as sentences for the user.
    """

    columns: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...]


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_parquet(path: Path) -> bool:
    """Whether a data file is parquet, by its name."""
    return path.suffix.lower() in (".parquet", ".pq")


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
    header, frame = _read_csv(path)
    problems = _header_problems(header, path, required)
    names = [name for name in frame.columns if name != "date"]
    if only is not None:
        names = [name for name in names if name == only]
    problems += [problem for name in names if (problem := _column_problem(frame[name], path))]
    if problems:
        raise InputError(problems)
    filled, filling = fill_gaps(frame[names].astype("float64"), source=path.name)
    notes = [*_date_notes(frame["date"], path), *filling]
    return Table(columns=tuple(names), values=filled.to_numpy(), notes=tuple(notes))


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


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what pandas says of a file that is no CSV into an input error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except UnicodeDecodeError as error:
        raise InputError(
            f"The data file {path} must be UTF-8 text, got bytes that are not. Save it as UTF-8 CSV."
        ) from error
    except pd.errors.EmptyDataError as error:
        raise InputError(
            f"The data file {path} is empty; it must hold a header with a date column, and rows."
        ) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InputError(
            f"The data file {path} must be CSV with as many fields in every row as in its header: {error}"
        ) from error
    except pa.ArrowInvalid as error:
        raise InputError(f"The data file {path} must be a whole parquet file: {error}") from error
    except OSError as error:
        raise InputError(f"The data file {path} cannot be read: {error.strerror}. Check its permissions.") from error


def _read_csv(path: Path) -> tuple[list[str], pd.DataFrame]:
    """The header as it is written ("" for a column without a name), and the rows."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "was not found"
        raise InputError(
            f"The data file {path} {what}. Name its folder with --root_path and the CSV file with --data_path."
        )
    with _readable(path):
        if is_parquet(path):
            frame = pd.read_parquet(path)
            header = [str(name) for name in frame.columns]
        else:
            written = pd.read_csv(path, encoding=_ENCODING, header=None, nrows=1, dtype=str, keep_default_na=False)
            header = written.iloc[0].tolist()
            frame = pd.read_csv(path, encoding=_ENCODING, index_col=False, low_memory=False)
    if frame.empty:
        raise InputError(f"The data file {path} has a header but no rows; it must hold one row per time step.")
    return header, frame


def _header_problems(header: list[str], path: Path, required: str | None) -> list[str]:
    shown = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
    problems = []
    if "date" not in header:
        problems.append(f"{path} must have a column named date, got {shown}. Name the column of times date.")
    if "" in header:
        problems.append(f"{path}: column {header.index('') + 1} has no name. Name it or remove it.")
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        problems.append(f"{path}: column {name} appears more than once. Rename or remove one.")
    if not set(header) - {"date"}:
        problems.append(f"{path} must have a numeric column beside date, got {shown}. Separate columns with commas.")
    elif required is not None and (required not in header or required == "date"):
        problems.append(f"target {required} is not a column of {path}, which has {shown}. Choose one with --target.")
    return problems


def _column_problem(column: pd.Series, path: Path) -> str | None:
    """What keeps a column from being numbers, if anything."""
    if str(column.name).startswith("Unnamed: "):
        return None
    if column.isna().all():
        return f"{path}: column {column.name} has no value at all. Remove it or fill it."
    numbers = _numbers(column) if column.dtype != bool else pd.Series(np.nan, column.index)
    bad = (numbers.isna() & column.notna()) | np.isinf(numbers)
    if not bad.any():
        return None
    first = int(np.flatnonzero(bad)[0])
    return (
        f"{path}: column {column.name} must be numeric, got {str(column.iloc[first])[:40]!r} in row {first + 1} "
        f"(line {first + 1 + _HEADER_LINES}). Remove the column or correct it."
    )


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
    best = None
    for way in ({}, {"format": "ISO8601"}, {"dayfirst": True}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = pd.to_datetime(dates, errors="coerce", utc=True, **way)  # type: ignore[call-overload]
        if best is None or found.count() > best.count():
            best = found
        if best.notna().all():
            break
    return best


def _dates_of_digits(numbers: pd.Series) -> pd.Series | None:
    """Dates written as digits alone, such as 20240131; None for numbers that count something else."""
    lengths = {len(f"{end:.0f}") for end in (numbers.min(), numbers.max())}
    form = _DIGITS.get(lengths.pop()) if len(lengths) == 1 else None
    if form is None or numbers.min() < 0 or (numbers.dropna() % 1).any():
        return None
    texts = numbers.map("{:.0f}".format, na_action="ignore")
    times = pd.to_datetime(texts, format=form, errors="coerce", utc=True)
    return times if times.count() == numbers.count() else None
