"""Odd data files of one run: tables with things wrong in them, in any form, compression and place, under any name."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd

from benchmarks.fuzz_runs import NASTY, SMALL, run_case
from benchmarks.fuzzing import Case, Maker, damaged

_ROWS = 160
_HEADERS = (
    "date", "Date", "ds", "time", "", "Unnamed: 0", "Unnamed: 1", "unique_id", "y", "a", "a", "OT", "load (kW)", "ü",
    "#date", "No", "index", " c0", "c0 ", "date ", "timestamp", "\ufeffdate", "NaN", "0",
)  # fmt: skip
_NAMES = (
    "data.csv", "data.csv", "data.csv", "data.txt", "data.csv.gz", "data.zip", "data.xz", "data.bz2", "data.zst",
    "data.tar", "data.tar.gz", "data.parquet", "data.xlsx", "data.CSV", "data", "données.csv", "a b.csv", "100%.csv",
    "what?.csv", "-rf.csv", "data.csv.", "d" * 240 + ".csv", "data.json", "data.csv.zip", "{0}.csv",
)  # fmt: skip
Table = list[list[str]]
"""A header and rows of texts."""


def make_csv(draw: random.Random, folder: Path) -> Case:
    """A data file: a sound table with some things wrong, in any encoding and compression, under any name."""
    table = _table(draw)
    for _ in range(draw.choice([0, 0, 1, 1, 2, 3])):
        draw.choice(_FAULTS)(draw, table)
    content = damaged(draw, draw.choice(_PACKERS)(draw.choice(_WRITERS)(draw, table)))
    name = draw.choice(_NAMES)
    path = folder / name
    if draw.random() < 0.97:
        path.write_bytes(content)
    else:
        draw.choice(_PLACES)(path)
    more = draw.choice([[], [], ["--features", "S"], ["--features", "MS", "--target", draw.choice(NASTY + _HEADERS)]])
    where = draw.choice([["--root_path", str(folder), f"--data_path={name}"], [f"--data_path={path}"]])
    return run_case(["--data", "custom", *where, *SMALL, *more])


def _table(draw: random.Random) -> Table:
    rows = draw.choice([0, 1, 5, 60, *[_ROWS] * 16])
    columns = draw.choice([1, 2, 3, 4, 4, 40])
    header = ["date", *(f"c{number}" for number in range(columns))]
    dates = draw.choice(_DATES)(rows)
    return [header, *([when, *(f"{draw.gauss(0, 1):.4f}" for _ in range(columns))] for when in dates)]


def _days(count: int) -> list[str]:
    return [str(date(2020, 1, 1) + timedelta(days=number)) for number in range(count)]


def _spaced(form: str, **step: float) -> Callable[[int], list[str]]:
    """Dates at one distance, in one form."""

    def make(count: int) -> list[str]:
        return [(datetime(2020, 2, 28) + number * timedelta(**step)).strftime(form) for number in range(count)]

    return make


def _months(count: int) -> list[str]:
    return [f"{1990 + number // 12}-{1 + number % 12:02d}-01" for number in range(count)]


_DATES: tuple[Callable[[int], list[str]], ...] = (
    _days, _days, _days, _months, _spaced("%Y-%m-%d %H:%M:%S", hours=1), _spaced("%d/%m/%Y", weeks=1),
    _spaced("%m/%d/%y %H:%M", minutes=15), _spaced("%Y-%m-%dT%H:%M:%S.%f+02:00", seconds=0.1),
    _spaced("%Y", days=366), _spaced("%H:%M", hours=1), _spaced("%s", hours=1), _spaced("%Y-W%W", weeks=1),
    _spaced("%B %d, %Y".replace(",", ""), days=1), _spaced("%Y%m%d", days=-1),
)  # fmt: skip


def _odd_cell(draw: random.Random, table: Table) -> None:
    row = draw.choice(table)
    if row:
        row[draw.randrange(len(row))] = draw.choice(NASTY)


def _odd_column(draw: random.Random, table: Table) -> None:
    place, value = draw.randrange(5), draw.choice([*NASTY, None])
    for number, row in enumerate(table[1:]):
        if place < len(row):
            row[place] = str(number) if value is None else value


def _steady_column(draw: random.Random, table: Table) -> None:
    """A constant, or what differs from one by next to nothing, or only at its end."""
    level = draw.choice(["0", "5.7e-18", "1e15", "-9999", "1e308", "3.3e38", "1e-310", "0.1"])
    other = draw.choice([level, "1e15", f"{float(level) * (1 + 1e-15)!r}", "", "7"])
    start = draw.choice([1, len(table) // 2, len(table) - 1])
    for number, row in enumerate(table):
        if number and row:
            row[-1] = other if number >= start and draw.random() < 0.5 else level


def _sentinels(draw: random.Random, table: Table) -> None:
    mark, share = draw.choice(["-9999", "1e20", "9.96921e36", "999", "-1e38", "1e39", "NA", "1e300"]), draw.random() / 5
    for row in table[1:]:
        if row and draw.random() < share:
            row[-1] = mark


def _dressed_numbers(draw: random.Random, table: Table) -> None:
    """Numbers as people write them."""
    form = draw.choice(["{} kW", "{}%", "€{}", "'{}", " {} ", "{}\u00a0", "+{}", "({})", "1 000", "1.000.000", '"{}"'])
    for row in table[1:]:
        if row:
            row[-1] = form.format(row[-1])


def _odd_dates(draw: random.Random, table: Table) -> None:
    """Dates that turn round, repeat, jump, or are of another form or far away."""
    rows = [row for row in table[1:] if row]
    kind = draw.randrange(5)
    if kind == 0:
        table[1:] = rows[::-1]
    elif kind == 1:
        for row in rows:
            row[0] = rows[0][0]
    elif kind == 2:
        draw.shuffle(rows)
        table[1:] = rows
    elif rows:
        odd = ["0001-01-01", "9999-12-31", "1677-01-01", "NaT", "2020-03-29 02:30:00+01:00", "24:00", "20200101", ""]
        for row in rows if kind == 3 else [draw.choice(rows)]:
            row[0] = draw.choice(odd)


def _odd_header(draw: random.Random, table: Table) -> None:
    table[0] = [draw.choice(_HEADERS) if draw.random() < 0.5 else name for name in table[0]]


def _odd_length(draw: random.Random, table: Table) -> None:
    row = draw.choice(table)
    row[:] = draw.choice([row[:1], [], [*row, "1"], row * 3])


def _more_lines(draw: random.Random, table: Table) -> None:
    lines = (["# comment"], [""], ["sep=;"], ["<html>"], ["{"], list(draw.choice(table)), [draw.choice(NASTY)])
    table.insert(draw.randrange(len(table) + 1), list(draw.choice(lines)))


def _index_column(draw: random.Random, table: Table) -> None:
    name, text = draw.choice(["", "Unnamed: 0", "index", "Unnamed: 0.1"]), draw.choice(["", "x", None])
    for number, row in enumerate(table):
        row.insert(0, name if not number else str(number) if text is None else text)


def _long_format(draw: random.Random, table: Table) -> None:
    rows = [[draw.choice("AB"), row[0], row[-1]] for row in table[1:] if row]
    table[:] = [["unique_id", "ds", "y"], *rows]


def _wide(draw: random.Random, table: Table) -> None:
    for number, row in enumerate(table):
        row += [f"w{place}" if not number else f"{place}.5" for place in range(300)]


_FAULTS: tuple[Callable[[random.Random, Table], None], ...] = (
    _odd_cell, _odd_cell, _odd_column, _odd_header, _odd_length, _more_lines, _long_format, _steady_column, _sentinels,
    _dressed_numbers, _odd_dates, _index_column, _wide,
)  # fmt: skip


def _as_text(draw: random.Random, table: Table) -> bytes:
    mark = draw.choice([*[","] * 12, ";", "\t", "|", " ", "::", ", "])
    rows = table
    if mark == ";" and draw.random() < 0.7:  # as spreadsheets write where commas stand in numbers
        rows = [[cell.replace(".", ",") for cell in row] for row in table]
    ending = draw.choice(["\n", "\n", "\r\n", "\r", "\n\n"])
    text = ending.join(mark.join(row) for row in rows) + draw.choice(["", ending, ending * 3, "\x1a"])
    return text.encode(draw.choice([*["utf-8"] * 12, "utf-8-sig", "utf-16", "latin-1", "cp1252"]), errors="replace")


def _as_quoted(draw: random.Random, table: Table) -> bytes:
    mark = draw.choice(['"', "'"])
    return "\n".join(",".join(f"{mark}{cell}{mark}" for cell in row) for row in table).encode(errors="replace")


def _as_html(draw: random.Random, table: Table) -> bytes:
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in table)
    return f"<!DOCTYPE html>\n<html><body><table>{rows}</table></body></html>".encode(errors="replace")


def _as_parquet(draw: random.Random, table: Table) -> bytes:
    """A Parquet file of texts, of numbers where they are numbers, or with an index."""
    width = max(map(len, table))
    names = [f"{name}{number}" for number, name in enumerate([*table[0], *[""] * width][:width])]
    frame = pd.DataFrame([[*row, *[""] * width][:width] for row in table[1:]], columns=["date", *names[1:]])
    kind = draw.randrange(3)
    if kind:
        frame = frame.apply(lambda column: column if column.name == "date" else pd.to_numeric(column, errors="coerce"))
    if kind == 2:
        frame["date"] = pd.to_datetime(frame["date"], errors="coerce", format="mixed", utc=draw.random() < 0.5)
        frame = frame.set_index("date")
    stream = io.BytesIO()
    frame.to_parquet(stream)
    return stream.getvalue()


_WRITERS: tuple[Callable[[random.Random, Table], bytes], ...] = (
    *[_as_text] * 10, _as_quoted, _as_html, _as_parquet,
)  # fmt: skip


def _zipped(*names: str) -> Callable[[bytes], bytes]:
    """A zip archive of these files, all of the same content; folders have none."""

    def pack(content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"" if name.endswith("/") else content)
        return stream.getvalue()

    return pack


def _tarred(*names: str) -> Callable[[bytes], bytes]:
    def pack(content: bytes) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return stream.getvalue()

    return pack


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _like_zstandard(content: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd" + content


_PACKERS: tuple[Callable[[bytes], bytes], ...] = (
    *[bytes] * 12, _gzipped, bz2.compress, lzma.compress, _zipped("inside.csv"), _zipped("a.csv", "b.csv"), _zipped(),
    _zipped("data/", "data/inside.csv", "__MACOSX/._inside.csv"), _tarred("inside.csv"), _tarred("a.csv", "b.csv"),
    lambda content: _gzipped(_tarred("inside.csv")(content)), lambda content: _gzipped(_gzipped(content)),
    lambda content: _zipped("inside.csv.gz")(_gzipped(content)), _like_zstandard,
)  # fmt: skip

_PLACES: tuple[Callable[[Path], None], ...] = (
    Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("/dev/null"),
    lambda path: path.symlink_to(path.with_name("nowhere")), lambda path: path.symlink_to(path), lambda path: None,
)  # fmt: skip
"""What stands in the place of the file."""

KINDS: Mapping[str, Maker] = {"csv": make_csv}
"""Kinds of data files."""
