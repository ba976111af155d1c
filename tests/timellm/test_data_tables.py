from pathlib import Path

import pandas as pd
import pytest

from timellm.contract.errors import InputError
from timellm.data.tables import Table, file_checksum, read_series

_GOOD = "date,a,b\n2020-01-01,1,2\n2020-01-02,3,4\n2020-01-03,5,6\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.csv"


def read(path: Path, text: str | bytes = _GOOD, only: str | None = None, required: str | None = None) -> Table:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_series(path, only=only, required=required)


def test_numeric_columns_are_read_in_their_order(path: Path):
    table = read(path)
    assert table.columns == ("a", "b")
    assert table.values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert table.notes == ()


def test_date_need_not_be_the_first_column(path: Path):
    assert read(path, "a,date\n1,2020-01-01\n").columns == ("a",)


def test_byte_order_mark_is_not_part_of_the_first_name(path: Path):
    assert read(path, b"\xef\xbb\xbf" + _GOOD.encode()).columns == ("a", "b")


def test_gaps_are_filled_forward_and_leading_ones_backward_and_said(path: Path):
    table = read(path, "date,a,b\n1,,2\n2,3,NA\n3,,4\n4,5,6\n")
    assert table.values.tolist() == [[3, 2], [3, 2], [3, 4], [5, 6]]
    assert table.notes == (
        "mine.csv: 3 missing values were filled forward (a 2, b 1), 1 of them at the start backward.",
    )


def test_many_columns_with_gaps_are_counted_not_listed(path: Path):
    names = [f"c{position}" for position in range(12)]
    text = f"date,{','.join(names)}\n1{',5' * 12}\n2{',' * 12}\n"
    assert "12 missing values" in read(path, text).notes[0]
    assert "and 4 more columns" in read(path, text).notes[0]


def test_rows_that_go_back_in_time_are_said(path: Path):
    table = read(path, "date,a\n2020-01-02,1\n2020-01-03,2\n2020-01-01,3\n")
    assert table.notes == ("mine.csv: row 3 is earlier than the row before it; the rows are used in the file's order.",)
    assert table.values[:, 0].tolist() == [1, 2, 3]


def _notes(path: Path, dates: list[str]) -> tuple[str, ...]:
    return read(path, "date,a\n" + "".join(f"{date},1\n" for date in dates)).notes


def _hours(count: int, form: str = "%Y-%m-%d %H:%M:%S") -> list[str]:
    return pd.date_range("2020-01-30", periods=count, freq="h").strftime(form).tolist()


def test_dates_that_cannot_be_read_are_said_and_the_others_still_judged(path: Path):
    hours = _hours(10)
    assert _notes(path, [*hours[:3], "soon", "", *hours[5:8], hours[6], hours[9]]) == (
        "mine.csv: the date cannot be read in 2 rows, the first is row 4 ('soon'); "
        "the rows are used in the file's order.",
        "mine.csv: the date of an earlier row is repeated in 1 row, the first is row 9; "
        "each counts as a step of its own.",
        "mine.csv: row 9 is earlier than the row before it; the rows are used in the file's order.",
        "mine.csv: the time since the row before is far from the median step in 1 row, the first is row 10 "
        "(3 times the median); the rows are used as if at equal distances.",
    )


def test_repeated_dates_are_counted(path: Path):
    hours = _hours(5)
    (note,) = _notes(path, [date for date in hours for _ in range(3)])
    assert note.startswith("mine.csv: the date of an earlier row is repeated in 10 rows, the first is row 2;")


def test_steps_far_from_the_median_are_counted(path: Path):
    hours = _hours(40)
    (note,) = _notes(path, [*hours[:5], *hours[10:20], "2020-01-30 19:15:00", *hours[20:30], *hours[32:]])
    assert "far from the median step in 3 rows, the first is row 6 (6 times the median)" in note


@pytest.mark.parametrize("frequency", ["s", "15min", "h", "D", "W", "MS", "QS", "YS"])
def test_calendar_steps_count_as_equal(path: Path, frequency: str):
    assert _notes(path, [str(date) for date in pd.date_range("2000-01-01", periods=50, freq=frequency)]) == ()


@pytest.mark.parametrize(
    "dates",
    [
        pytest.param(_hours(1000, "%Y-%m-%dT%H:%MZ"), id="ISO 8601"),
        pytest.param(_hours(1000, "%m/%d/%Y %H:%M"), id="month first"),
        pytest.param(_hours(1000, "%d/%m/%Y %H:%M"), id="day first"),
        pytest.param(_hours(1000, "%Y%m%d%H"), id="digits alone"),
        pytest.param([hour.removesuffix(" 00:00:00") for hour in _hours(1000)], id="midnight as a day"),
        pytest.param([str(1_580_342_400 + 3600 * row) for row in range(100)], id="seconds"),
        pytest.param([str(row) for row in range(100)], id="row numbers"),
        pytest.param([f"{2000 + month / 12:.3f}" for month in range(100)], id="parts of years"),
    ],
)
def test_regular_dates_have_no_note_however_they_are_written(path: Path, dates: list[str]):
    assert _notes(path, dates) == ()


def test_file_without_a_readable_date_has_one_note(path: Path):
    (note,) = _notes(path, ["first", "second", "third"])
    assert note.startswith("mine.csv: the date cannot be read in 3 rows, the first is row 1 ('first');")


def test_number_too_large_for_a_float_is_refused_in_a_column_and_said_in_the_dates(path: Path):
    large = "1" + "0" * 400
    with pytest.raises(InputError, match=r"column a must be numeric, got '10+' in row 1"):
        read(path, f"date,a\n1,{large}\n2,3\n")
    assert "the date cannot be read in 1 row" in _notes(path, [large, "2", "3"])[0]


def test_missing_file_names_the_flags(path: Path):
    with pytest.raises(InputError, match=r"mine.csv was not found. Name its folder with --root_path"):
        read_series(path, only=None, required=None)


def test_folder_instead_of_a_file_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder"):
        read_series(tmp_path, only=None, required=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("date,a\n", "has a header but no rows", id="header alone"),
        pytest.param(b"date,a\n2020-01-01,\xff\xfe1\n", "must be UTF-8 text", id="other encoding"),
        pytest.param("time,a\n2020-01-01,1\n", "must have a column named date, got time, a", id="no date"),
        pytest.param(
            "date;a\n2020-01-01;1\n",
            r"must have commas between fields, got semicolons in line 1 \('date;a'\)",
            id="semicolons",
        ),
        pytest.param("date\n2020-01-01\n", "must have a numeric column beside date", id="date alone"),
        pytest.param("date,a,\n1,1,1\n", "column 3 has no name", id="no name"),
        pytest.param("date,a\n1,1\n2,2,3\n", "as many fields in every row", id="long row"),
        pytest.param("date,a\n1,1,9\n2,2,3\n", "as many fields in every row", id="all rows long"),
        pytest.param(
            "date,a,b\n1,1,1\n2,2,x\n3,3,y\n",
            r"column b must be numeric, got 'x' in row 2 \(line 3\)",
            id="text",
        ),
        pytest.param("date,a\n1,True\n2,False\n", "column a must be numeric, got 'True' in row 1", id="booleans"),
        pytest.param("date,a\n1,1\n2,inf\n", "column a must be numeric, got 'inf' in row 2", id="infinite"),
        pytest.param("date,a,b\n1,1,\n2,2,\n", "column b has no value at all", id="NaN alone"),
        pytest.param('date,a\n1,"1\n2,2\n', "must be CSV", id="open quote"),
    ],
)
def test_file_that_is_no_series_is_refused(path: Path, text: str | bytes, message: str):
    with pytest.raises(InputError, match=message):
        read(path, text)


def test_every_problem_of_a_file_is_said_at_once_on_one_line(path: Path):
    with pytest.raises(InputError) as caught:
        read(path, "time,a,b\n1,x,\n2,2,\n", required="OT")
    assert len(caught.value.problems) == 4
    assert "\n" not in str(caught.value)


def test_missing_target_names_the_columns(path: Path):
    with pytest.raises(InputError, match=r"target OT is not a column of .*, which has date, a, b. Choose one"):
        read(path, required="OT")


def test_columns_that_are_not_used_are_not_judged(path: Path):
    table = read(path, "date,a,b\n1,1,x\n2,2,y\n", only="a", required="a")
    assert table.columns == ("a",)


def test_repeated_names_are_refused(path: Path):
    with pytest.raises(InputError, match="column a appears more than once"):
        read(path, "date,a,a\n1,1,2\n")


def test_checksum_is_the_content_s(path: Path):
    path.write_bytes(b"abc")
    assert file_checksum(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
