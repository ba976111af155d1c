import pandas as pd
import pyarrow.parquet
import pytest

from results import load_trials
from results.commands import run
from results.schema import DESCRIPTION, UNIT, to_parquet, trials_schema
from tests.results.synthetic import make_rows, make_run
from timellm.contract.columns import COLUMNS, DTYPES


def test_the_file_holds_each_columns_unit_and_description(tmp_path):
    folder = make_run(tmp_path / "a", make_rows(12))

    schema = pyarrow.parquet.read_schema(folder.trials_parquet)

    assert schema.field("seconds_per_epoch").metadata[UNIT] == b"s"
    assert UNIT not in schema.field("trial_id").metadata
    assert schema.field("config/batch_size").metadata[DESCRIPTION] == b"Value of the knob batch_size."
    for column in COLUMNS:
        found = schema.field(column.name).metadata
        assert (found.get(UNIT, b"").decode(), found[DESCRIPTION].decode()) == (column.unit, column.description)


def test_the_file_has_the_types_of_the_schema_whatever_the_rows_hold(tmp_path):
    for number, rows in enumerate(([], make_rows(12))):
        folder = make_run(tmp_path / str(number), rows)
        schema = pyarrow.parquet.read_schema(folder.trials_parquet)
        assert [schema.field(column.name).type for column in COLUMNS] == trials_schema().types


def test_pandas_reads_the_file_with_its_own_types(tmp_path):
    folder = make_run(tmp_path / "a", make_rows(12))

    frame = pd.read_parquet(folder.trials_parquet)

    assert {str(frame[column.name].dtype) for column in COLUMNS if column.kind == "number"} == {DTYPES["number"]}
    assert frame["state"].cat.ordered
    pd.testing.assert_frame_equal(
        frame, load_trials(folder.path).drop(columns="run"), check_like=True, check_categorical=False
    )


@pytest.mark.parametrize("kind", DTYPES)
def test_a_knob_may_be_of_any_kind(kind):
    knobs = {"config/x": kind}

    assert trials_schema(knobs).field("config/x").type == trials_schema({"config/y": kind}).field("config/y").type


def test_an_export_of_several_runs_is_described_too(tmp_path):
    folders = [make_run(tmp_path / name, make_rows(8)).path for name in "ab"]

    assert run(["export", *map(str, folders), "--format", "parquet", "--output", str(tmp_path / "x.parquet")]) == 0

    schema = pyarrow.parquet.read_schema(tmp_path / "x.parquet")
    assert schema.names[0] == "run"
    assert schema.field("peak_memory_gib").metadata[UNIT] == b"GiB"
    assert len(pd.read_parquet(tmp_path / "x.parquet")) == 16


def test_a_table_keeps_its_rows_through_the_file(tmp_path):
    frame = load_trials(make_run(tmp_path / "a", make_rows(12)).path)
    (tmp_path / "x.parquet").write_bytes(to_parquet(frame))

    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), frame, check_categorical=False)
