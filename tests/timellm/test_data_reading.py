"""Files that people really have: compressed, mis-named, exported by other tools."""

import bz2
import csv
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timellm.contract.errors import InputError
from timellm.data.tables import Table, read_series

CASES = Path(__file__).parents[1] / "cases" / "data"
TEXT = b"date,load,OT\n2020-01-01 00:00:00,1.5,2\n2020-01-01 01:00:00,2.5,3\n2020-01-01 02:00:00,3.5,5\n"
VALUES = [[1.5, 2], [2.5, 3], [3.5, 5]]


def _zip(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


PACKED = {
    "text": TEXT,
    "gzip": gzip.compress(TEXT),
    "bzip2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
    "zip": _zip(inside=TEXT),
    "tar": _tar(inside=TEXT),
    "tar.gz": gzip.compress(_tar(inside=TEXT)),
}


def read(folder: Path, content: bytes | str, name: str = "mine.csv") -> Table:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_series(path, only=None, required=None)


def refusal(folder: Path, content: bytes | str, name: str = "mine.csv") -> str:
    """The one problem of a file."""
    with pytest.raises(InputError) as caught:
        read(folder, content, name)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "gz", "zip", "xz", "bz2", "zst", "tar", "tar.gz", "parquet", "txt"])
@pytest.mark.parametrize("kind", PACKED)
def test_compression_is_decided_by_content_not_by_name(tmp_path, kind, ending):
    assert read(tmp_path, PACKED[kind], f"mine.csv.{ending}").values.tolist() == VALUES


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zip", "tar.gz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_off_archive_is_refused(tmp_path, kind, share):
    content = PACKED[kind]
    message = refusal(tmp_path, content[: max(6, int(len(content) * share))])
    assert "cut off or damaged" in message
    assert "Copy or download it again." in message


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_archive_must_hold_one_file(tmp_path, pack):
    assert "must hold one CSV file, got 2: one.csv, two.csv" in refusal(
        tmp_path, pack(**{"one.csv": TEXT, "two.csv": TEXT})
    )
    message = refusal(tmp_path, _zip())
    assert "is an archive and must hold one CSV file, got 0: none" in message
    assert "cut off" not in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (_zip(**{"xl/workbook.xml": b"<a/>", "[Content_Types].xml": b"<a/>"}), "an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(99), "an Excel workbook"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        (b"%PDF-1.7 " + bytes(99), "a PDF"),
        (b"SQLite format 3\0" + bytes(99), "an SQLite database"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "compressed with zstd"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"PAR1" + bytes(99), "whole parquet file"),
        (b'{"date": [1, 2]}', "got JSON in line 1"),
        (b'\n\n[{"date": 1}]', "got JSON in line 3"),
        (b"\n<html><body>404</body></html>", "got a web page or XML in line 2"),
        ("date,a\n1,2\n".encode("utf-16"), "got UTF-16"),
        ("date,a\n1,2\n".encode("utf-16-le"), "a zero byte in line 1"),
        ("date,a\n1,2\n".encode("utf-32"), "got UTF-32"),
        ("date,Wärme\n1,2\n".encode("latin-1"), "byte 0xe4 in line 1 ('date,Wärme' in Windows-1252)"),
        ("date,a\n1,2\n2,3 €\n".encode("cp1252"), "byte 0x80 in line 3"),
        (b"\xef\xbb\xbfdate,a\n1,\xe4\n", "byte 0xe4 in line 2"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\n\n  \n", "is empty"),
    ],
)
def test_another_format_is_named(tmp_path, content, found):
    assert found in refusal(tmp_path, content)


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), ("  ", "spaces")])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_another_separator_is_named_with_line_and_advice(tmp_path, mark, name, decimal, bom):
    rows = "".join(f"2020-01-0{day}{mark}1{decimal}{day}{mark}2{decimal}5\n" for day in range(1, 9))
    message = refusal(tmp_path, f"{bom}date{mark}load{mark}OT\n{rows}")
    assert f"must have commas between fields, got {name} in line 1 (" in message
    assert (" and decimal commas in line 2 ('1,1')" in message) == (decimal == ",")
    assert message.count("read_csv") == 1


def test_the_advice_for_another_separator_works(tmp_path):
    refusal(tmp_path, (CASES / "euro.csv").read_bytes())
    pd.read_csv(CASES / "euro.csv", sep=";", decimal=",").to_csv(tmp_path / "new.csv", index=False)
    table = read_series(tmp_path / "new.csv", only=None, required=None)
    assert table.values[:2, 0].tolist() == [0.016, 0.108]


@pytest.mark.parametrize(
    "above", ["# a logger\n", "// a\n", "% a\n# b\n", "sep=,\n", "Station 12\n\n", "Report;2020\n"]
)
def test_lines_above_the_header_are_named(tmp_path, above):
    message = refusal(tmp_path, above.encode() + TEXT)
    assert "must begin with its header" in message
    assert "Remove line 1." in message or f"Remove lines 1 to {above.count(chr(10))}." in message
    assert read(tmp_path, TEXT).values.tolist() == VALUES


def test_a_commented_header_is_said(tmp_path):
    assert "Remove that character." in refusal(tmp_path, b"#" + TEXT)


@pytest.mark.parametrize("name", ["Date", "DATE", "ds", "timestamp", "Datetime", "date_time", "Time", "Zeit"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_times_under_another_name_get_one_advice(tmp_path, name, place):
    columns = ["load", "OT"]
    columns.insert(place, name)
    rows = []
    for hour in range(4):
        row = [str(hour), "2.5"]
        row.insert(place, f"2020-01-01 0{hour}:00:00")
        rows.append(",".join(row))
    message = refusal(tmp_path, "\n".join([",".join(columns), *rows]))
    assert f"Rename column {name} to date." in message
    assert "numeric" not in message


@pytest.mark.parametrize("name", ["when", "t", "stamp"])
def test_times_under_a_strange_name_are_found_by_their_values(tmp_path, name):
    assert f"Rename column {name} to date." in refusal(tmp_path, f"{name},a\n2020-01-01,1\n2020-01-02,2\n")


def test_a_date_and_a_time_of_day_are_to_be_renamed_or_joined_not_both(tmp_path):
    text = "Date,Time,a\n01/02/2020,10:00,1\n01/02/2020,11:00,2\n"
    assert refusal(tmp_path, text).endswith("Rename column Date to date.")
    parts = "year,month,day,hour,a\n2020,1,1,0,3\n2020,1,1,1,4\n"
    assert refusal(tmp_path, parts).endswith("Join the columns year, month, day, hour into one named date.")


def test_a_file_without_a_header_is_said(tmp_path):
    message = refusal(tmp_path, TEXT.split(b"\n", 1)[1])
    assert "must begin with a header, got data in line 1" in message
    assert "date,column1,column2" in message


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ('"1,5"', "decimal point"), ('"1,234.5"', "thousands"), ("?", "leave the field empty"),
        ("--", "leave the field empty"), ("12 %", "correct it"), ("yes", "correct it"),
    ],
)  # fmt: skip
def test_a_text_among_numbers_names_its_line_and_gives_one_advice(tmp_path, value, advice):
    message = refusal(tmp_path, f"\n\ndate,a\n2020-01-01,1\n\n2020-01-02,{value}\n2020-01-03,3\n")
    assert "in row 2 (line 6)" in message
    assert advice in message


def test_decimal_commas_without_quotes_are_guessed_from_the_number_of_fields(tmp_path):
    assert "decimal commas" in refusal(tmp_path, "date,a,b\n2020-01-01,1,5,2,5\n2020-01-02,1,5,2,5\n")


def test_a_line_of_units_is_one_problem(tmp_path):
    message = refusal(tmp_path, "date,a,b\n,degC,m/s\n2020-01-01,1,2\n2020-01-02,2,3\n")
    assert "must have one header and then numbers, got a second one in row 1 (line 2)" in message


def test_blank_fields_are_empty_ones(tmp_path):
    table = read(tmp_path, "date, a ,b\n2020-01-01,1, \n2020-01-02, ,3\n2020-01-03,4,5\n")
    assert table.columns == ("a", "b")
    assert table.values.tolist() == [[1, 3], [1, 3], [4, 5]]
    assert "2 missing values" in table.notes[0]


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1"])
@pytest.mark.parametrize("start", [0, 1, 500])
def test_an_index_without_a_name_is_left_out_and_said(tmp_path, name, start):
    table = read(
        tmp_path, f"{name},date,a\n" + "".join(f"{start + at},2020-01-0{at + 1},{at * at}\n" for at in range(9))
    )
    assert table.columns == ("a",)
    assert table.notes == (f"mine.csv: column 1 ({name or 'without a name'}) numbers the rows and was left out.",)


def test_trailing_separators_are_left_out_and_said(tmp_path):
    table = read(tmp_path, "date,a,\n2020-01-01,1,\n2020-01-02,3,\n")
    assert table.columns == ("a",)
    assert "column 3 (without a name) is empty and was left out" in table.notes[0]


def test_measurements_headed_unnamed_are_kept_where_they_have_a_name(tmp_path):
    table = read(tmp_path, "date,Unnamed: 1\n2020-01-01,1.5\n2020-01-02,3\n")
    assert table.columns == ("Unnamed: 1",)


def test_a_column_that_counts_the_rows_is_asked_about(tmp_path):
    table = read(tmp_path, "No,date,a\n1,2020-01-01,5\n2,2020-01-02,3\n3,2020-01-03,4\n")
    assert "No counts the rows and is forecast like any column" in table.notes[0]


@pytest.mark.parametrize("mark", [-9999, -999, 9999, -99.9, 99999, 1e20, -1e20, -32768, 2147483647])
def test_marks_of_missing_values_get_a_note_that_asks(tmp_path, mark):
    values = np.sin(np.arange(200.0)).round(3)
    values[[20, 21, 70]] = mark
    (note,) = read(tmp_path, pd.DataFrame({"date": range(200), "wv": values}).to_csv(index=False)).notes
    assert f"wv {mark:g} (3 times). Do they mark missing values?" in note


@pytest.mark.parametrize(
    "values",
    [
        np.arange(50.0) ** 2, np.r_[np.zeros(49), 1.0], np.sin(np.arange(50.0)) * 9999,
        np.r_[np.arange(99.0), 99], np.r_[np.random.default_rng(0).standard_cauchy(50)], np.r_[[-1.0] * 20, range(30)],
    ],
)  # fmt: skip
def test_ordinary_values_get_no_note(tmp_path, values):
    assert read(tmp_path, pd.DataFrame({"date": range(len(values)), "a": values}).to_csv(index=False)).notes == ()


def test_the_long_format_is_read_as_one_column_for_each_series(tmp_path):
    table = read(
        tmp_path,
        "unique_id,ds,y\nb,2020-01-02,4\nb,2020-01-01,3\na,2020-01-01,1\na,2020-01-02,2\na,2020-01-03,9\n",
    )
    assert table.columns == ("b", "a")
    assert table.values.tolist() == [[3, 1], [4, 2], [4, 9]]
    assert "read as 2 columns of 3 rows; 1 of them have no value at some of the times." in table.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unique_id,ds,y\na,2020-01-01,1\na,2020-01-01,2\n", "another of a at 2020-01-01 in row 2 (line 3)"),
        ("unique_id,ds,y\na,2020-01-01,one\n", "column y must be numeric, got 'one' in row 1 (line 2)"),
        ("unique_id,ds,y\n,2020-01-01,1\n", "column unique_id must hold a name in every row"),
        ("unique_id,ds,y\na,,1\n", "column ds must hold a date in every row"),
        ("unique_id,ds,y,price\na,2020-01-01,1,2\n", "got price. Remove the others."),
    ],
)
def test_a_long_format_that_is_none_is_refused(tmp_path, text, message):
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_every_case_is_read_with_a_note_or_refused_in_one_line(name):
    read_well = {"late_sensor.csv", "long_format.csv", "sentinel_9999.csv", "text_named.csv.gz", "unnamed_empty.csv"}
    if name in read_well:
        table = read_series(CASES / name, only=None, required=None)
        assert np.isfinite(table.values).all()
        return
    with pytest.raises(InputError) as caught:
        read_series(CASES / name, only=None, required=None)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.csv", "a" * 300, "x\0y", "https://example.org/a.csv", ""])
def test_what_is_no_file_is_said(tmp_path, name):
    with pytest.raises(InputError):
        read_series(tmp_path / name if "://" not in name else Path(name), only=None, required=None)


def _is_read_or_refused(folder: Path, content: bytes) -> None:
    """Any other exception than an input error fails the test."""
    try:
        table = read(folder, content)
    except InputError as error:
        said = str(error)
    else:
        said = ""
        assert np.isfinite(table.values).all()
    assert "\n" not in said


@given(
    st.lists(
        st.lists(st.text(max_size=8) | st.floats().map(str) | st.dates().map(str), max_size=4),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.sampled_from([None, gzip.compress, lzma.compress]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_read_or_refused(tmp_path, rows, mark, encoding, pack):
    stream = io.StringIO()
    csv.writer(stream, delimiter=mark, escapechar="\\").writerows(rows)
    content = ("date,a\n" * (mark == ",") + stream.getvalue()).encode(encoding, errors="replace")
    _is_read_or_refused(tmp_path, pack(content) if pack else content)


@given(st.binary(max_size=200), st.sampled_from([b"", *(content[:9] for content in PACKED.values())]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path, content, start):
    _is_read_or_refused(tmp_path, start + content)
