"""What a file that is not the CSV we read looks like instead, in one sentence with one advice."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

_HEAD_LINES = 60
_SHOWN = 50
_COMMENTS = ("#", "%", "//", "/*", "--", "!", "sep=")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
_TIME_NAMES = {
    "date", "dates", "datetime", "date time", "date_time", "datetimes", "time", "times", "timestamp", "timestamps",
    "time stamp", "time_stamp", "ds", "day", "hour", "month", "year", "utc", "datum", "zeit", "zeitstempel", "fecha",
    "hora", "datetime_utc", "utc_timestamp", "date_hour", "time_hour", "local_time", "period", "index_date", "日期",
}  # fmt: skip
"""Names that columns of times have in files of other tools, in lower case."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_DATE = re.compile(r"\d{1,4}([-/.:]\d{1,4}){1,2}([ T].*)?")


def shown(text: str) -> str:
    """The beginning of a line, quoted, on one line."""
    short = text.strip("\r\n\ufeff")
    return repr(short if len(short) <= _SHOWN else short[:_SHOWN] + "…")


def other_format(lines: Sequence[str], path: Path) -> str | None:
    """What a text is that is not a table with commas: a web page, JSON, comments first, other separators.

    Args:
        lines: The first lines of the file.
        path: Its name, for the message.

    Returns:
        The problem, or None if the text may be CSV with a header in its first line.
    """
    numbered = [(number, line) for number, line in enumerate(lines[:_HEAD_LINES], start=1) if line.strip()]
    if not numbered:
        return None
    number, first = numbered[0]
    start = first.lstrip("\ufeff \t")
    where = f"in line {number} ({shown(first)})"
    if start.startswith("<"):
        return (
            f"The data file {path} must be CSV, got a web page or XML {where}. Download the file itself, not the page "
            "that shows it."
        )
    if start.startswith(("{", "[")):
        return f"The data file {path} must be CSV, got JSON {where}. Save it as CSV with a column named date."
    return _before_header(numbered, path) or _other_separator(numbered, path)


def missing_date(header: Sequence[str], first_row: Sequence[str], path: Path, line: int) -> tuple[str, set[int]]:
    """Why a file has no column `date`, with one advice, and the columns that hold its times instead.

    Args:
        header: Names of the columns.
        first_row: Values of the first row, as text.
        path: The file's name.
        line: The header's line.
    """
    names = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
    if sum(_is_value(name) for name in header) * 2 > len(header):
        what = f"data in line {line} ({shown(','.join(header))})"
        example = ",".join(["date", *(f"column{position}" for position in range(1, min(len(header), 3)))])
        text = f"{path} must begin with a header, got {what}. Add a line of names above it, such as {example}."
        return text, set(range(len(header)))
    times = [position for position, name in enumerate(header) if name.casefold() in _TIME_NAMES]
    if not times:
        times = [position for position, value in enumerate(first_row[: len(header)]) if _DATE.fullmatch(value.strip())]
    requirement = f"{path} must have a column named date, got {names} in line {line}."
    if len(times) > 1 and not any(_is_whole_date(first_row[at]) for at in times if at < len(first_row)):
        listed = ", ".join(header[position] for position in times)
        return f"{requirement} Join the columns {listed} into one named date.", set(times)
    if times:
        best = next((at for at in times if at < len(first_row) and _is_whole_date(first_row[at])), times[0])
        return f"{requirement} Rename column {header[best]} to date.", set(times)
    return f"{requirement} Name the column of times date.", set()


def field_hint(first_row: str, fields: int) -> str:
    """What explains that rows have more fields than the header: a decimal comma in each number."""
    found = first_row.rstrip("\r\n").split(",")
    if fields > 1 and len(found) == 2 * fields - 1 and all(part.strip().lstrip("+-").isdigit() for part in found[1:]):
        return " Numbers seem to have decimal commas; write decimal points."
    return ""


def value_hint(value: str) -> str:
    """One advice for a text that stands where a number must."""
    text = value.strip()
    if _DECIMAL_COMMA.fullmatch(text):
        return "Write numbers with a decimal point, not a comma."
    if re.fullmatch(r"[-+]?\d{1,3}([,' _]\d{3})+(\.\d+)?", text):
        return "Write numbers without thousands separators."
    if not any(character.isalnum() for character in text) or text.casefold() in {"missing", "unknown", "na.", "nil"}:
        return "If it marks a missing value, leave the field empty."
    return "Remove the column or correct it."


def _before_header(numbered: Sequence[tuple[int, str]], path: Path) -> str | None:
    """Lines above the header: comments, a spreadsheet's `sep=`, a title."""
    number, first = numbered[0]
    if first.startswith("#") and "date" in _fields(first[1:]):
        return f"The data file {path} has {shown('#')} before its header in line {number}. Remove that character."
    is_comment = first.lstrip("\ufeff ").casefold().startswith(_COMMENTS)
    if not is_comment and ("date" in _fields(first) or len(_fields(first)) > 1):
        return None
    below = next((at for at, line in numbered[1:] if "date" in [name.casefold() for name in _fields(line)]), None)
    if below is None:
        after = (at for at, line in numbered if not line.casefold().startswith(_COMMENTS))
        below = next(after, None) if is_comment else None
    if below is None and not is_comment:
        return None
    last = (below or number + 1) - 1
    lines = f"line {number}" if last == number else f"lines {number} to {last}"
    what = "a comment" if is_comment else "another text"
    return (
        f"The data file {path} must begin with its header, got {what} in line {number} ({shown(first)}). "
        f"Remove {lines}."
    )


def _other_separator(numbered: Sequence[tuple[int, str]], path: Path) -> str | None:
    """Another separator than the comma, and decimal commas with it."""
    number, first = numbered[0]
    names = _fields(first)
    if "date" in names and len(names) > 1:
        return None
    counts = {mark: len(_fields(first, mark)) for mark in _SEPARATORS}
    if any(other in first for other in ",;\t|"):
        counts[" "] = 0
    mark = max(counts, key=lambda mark: counts[mark])
    rows = [(at, _fields(line, mark)) for at, line in numbered[1:]]
    same = sum(len(row) == counts[mark] for _, row in rows)
    if mark == " ":
        same = sum(len(row) >= counts[mark] for _, row in rows)  # a date of two words
    if counts[mark] < 2 or counts[mark] <= len(names) or same * 2 < len(rows):
        return None
    text = f"The data file {path} must have commas between fields, got {_SEPARATORS[mark]} in line {number} "
    text += f"({shown(first)})"
    options = r"sep=r'\s+'" if mark == " " else f"sep={mark!r}"
    for at, row in rows:
        decimal = next((field for field in row if _DECIMAL_COMMA.fullmatch(field)), None)
        if decimal is not None:
            text += f" and decimal commas in line {at} ({shown(decimal)})"
            options += ", decimal=','"
            break
    return f"{text}. Save it with commas and decimal points: pandas.read_csv(OLD, {options}).to_csv(NEW, index=False)."


def _fields(line: str, mark: str = ",") -> list[str]:
    text = line.strip("\r\n\ufeff ")
    if mark == " ":
        return text.split()
    try:
        return [field.strip() for field in next(csv.reader([text], delimiter=mark), [])]
    except csv.Error:
        return text.split(mark)


def _is_value(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text.strip()) or _DATE.fullmatch(text.strip()))


def _is_whole_date(text: str) -> bool:
    """Whether a text can be a date by itself: a time of day or a number of up to four digits cannot."""
    text = text.strip()
    if text.isdigit():
        return len(text) > 5
    return bool(_DATE.fullmatch(text)) and not re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text)
