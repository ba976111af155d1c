"""A CSV or parquet file as a frame of its columns, before anything is made of them."""

import csv
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from timellm.contract.errors import InputError, one_line
from timellm.data.contents import is_parquet, read_content, regular_file
from timellm.data.diagnosis import field_hint, other_format, shown

_ENCODING = "utf-8-sig"
_OTHER_MARKS = ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_HEAD_BYTES = 1 << 16
_WRITTEN_UNNAMED = "Unnamed: "
"""How pandas names a column without one, and then writes that name into a file."""


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """The columns of a file as they are written.

    Attributes:
        header: Names of the columns, without spaces around them; "" for one without a name.
        frame: Their values, one column for each name, numbered from 0.
        content: The file's text; empty for parquet.
    """

    header: tuple[str, ...]
    frame: pd.DataFrame
    content: bytes

    @property
    def header_line(self) -> int:
        """Number of the header's line, from 1; blank lines above it are skipped."""
        return next(_line_numbers(self.content), 1)

    def place(self, row: int) -> str:
        """Where a row stands: `row 3 (line 4)`, both from 1."""
        if not self.content:
            return f"row {row + 1}"
        numbers = _line_numbers(self.content)
        line = next((number for position, number in enumerate(numbers) if position == row + 1), row + 2)
        return f"row {row + 1} (line {line})"


def read_rows(path: Path) -> Rows:
    """Read a file's columns.

    Raises:
        InputError: If the file is not CSV text with commas, or parquet, or has no rows.
    """
    rows = _read_parquet(path) if is_parquet(regular_file(path)) else _read_csv(read_content(path), path)
    if rows.frame.empty:
        raise InputError(f"The data file {path} has a header but no rows; it must hold one row per time step.")
    return rows


def left_out(rows: Rows, path: Path) -> tuple[Rows, list[str]]:
    """The columns without those that only number the rows or hold nothing, and have no name of their own.

    A spreadsheet or pandas leaves them: an empty header cell, or `Unnamed: 0` where such a file was read and written.

    Returns:
        The other columns, and a note for each that was left out.
    """
    notes, kept = [], []
    for position, name in enumerate(rows.header):
        column = rows.frame[position]
        what = _nothing_of_its_own(column) if name == "" or name.startswith(_WRITTEN_UNNAMED) else None
        if what is None or len(rows.header) <= 2:
            kept.append(position)
        else:
            named = f"column {position + 1} ({name or 'without a name'})"
            notes.append(f"{path.name}: {named} {what} and was left out.")
    frame = rows.frame[kept].set_axis(range(len(kept)), axis=1)
    return Rows(tuple(rows.header[position] for position in kept), frame, rows.content), notes


def _nothing_of_its_own(column: pd.Series) -> str | None:
    if column.isna().all():
        return "is empty"
    return "numbers the rows" if counts_rows(column) else None


def counts_rows(column: pd.Series) -> bool:
    """Whether a column is 0, 1, 2 and so on, from any whole number."""
    if column.dtype.kind not in "iuf" or len(column) < 2 or column.isna().any():
        return False
    values = column.to_numpy(dtype="float64")
    return bool(values[0] % 1 == 0 and (np.diff(values) == 1).all())


def _read_parquet(path: Path) -> Rows:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, ArithmeticError, KeyError) as error:
        text = one_line(error)
        raise InputError(f"The data file {path} must be a whole parquet file, got one that is not: {text}") from error
    if frame.index.name is not None:
        frame = frame.reset_index()
    return Rows(tuple(str(name).strip() for name in frame.columns), frame.set_axis(range(frame.shape[1]), axis=1), b"")


def _read_csv(content: bytes, path: Path) -> Rows:
    if not content.strip(b"\xef\xbb\xbf \t\r\n"):
        raise InputError(f"The data file {path} is empty; it must hold a header with a date column, and rows.")
    _check_text(content, path)
    lines = content[:_HEAD_BYTES].decode(_ENCODING, errors="replace").splitlines()
    if (problem := other_format(lines, path)) is not None:
        raise InputError(problem)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            written = pd.read_csv(
                io.BytesIO(content), encoding=_ENCODING, header=None, nrows=1, dtype=str, keep_default_na=False
            )
            frame = pd.read_csv(io.BytesIO(content), encoding=_ENCODING, index_col=False, low_memory=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InputError(_ragged(lines, str(error), path)) from error
    except (ValueError, OverflowError, MemoryError) as error:
        text = one_line(error)
        raise InputError(f"The data file {path} cannot be read as CSV: {text}. Check what it holds.") from error
    header = tuple(name.strip() for name in written.iloc[0].tolist())
    return Rows(header, frame.set_axis(range(frame.shape[1]), axis=1), content)


def _check_text(content: bytes, path: Path) -> None:
    """Refuse what is not UTF-8 text, with the line and the byte."""
    for mark, name in _OTHER_MARKS:
        if content.startswith(mark):
            raise InputError(f"The data file {path} must be UTF-8 text, got {name}. Save it as UTF-8 CSV.")
    if (position := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, position) + 1
        raise InputError(
            f"The data file {path} must be UTF-8 text, got a zero byte in line {line}: it is not text, or UTF-16. "
            "Save it as UTF-8 CSV."
        )
    try:
        content.decode(_ENCODING)
    except UnicodeDecodeError as error:
        # The exception counts from after the mark.
        position = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, position) + 1
        text = content[content.rfind(b"\n", 0, position) + 1 :][:200].split(b"\n")[0].decode("cp1252", "replace")
        raise InputError(
            f"The data file {path} must be UTF-8 text, got byte 0x{content[position]:02x} in line {line} "
            f"({shown(text)} in Windows-1252). Save it as UTF-8 CSV."
        ) from error


def _ragged(lines: Sequence[str], said: str, path: Path) -> str:
    """What a parser says of rows that do not have the header's number of fields."""
    written = [line for line in lines if line.strip()][:2]
    text = " ".join(said.removeprefix("Error tokenizing data. C error: ").split()).rstrip(".")
    hint = field_hint(written[1], written[0].count(",") + 1) if len(written) == 2 else ""
    return f"The data file {path} must be CSV with as many fields in every row as in its header: {text}.{hint}"


def _line_numbers(content: bytes) -> Iterator[int]:
    """The line that each record of a CSV begins in, blank ones left aside, the header first."""
    reader = csv.reader(io.StringIO(content.decode(_ENCODING, errors="replace")))
    before = 0
    try:
        for record in reader:
            if record:
                yield before + 1
            before = reader.line_num
    except csv.Error:
        return
