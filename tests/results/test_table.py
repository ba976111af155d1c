import math

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.analysis.table import load_trials, typed_table, write_trials
from tests.results.synthetic import make_manifest, make_row, make_rows, make_run
from timellm.contract.columns import COLUMNS, STATES
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
NUMBER = st.floats(allow_nan=False, width=64)


def test_a_table_has_every_column_in_its_dtype(tmp_path):
    frame = load_trials(make_run(tmp_path / "t1").path)

    assert list(frame)[: len(COLUMNS) + 1] == ["run", *(column.name for column in COLUMNS)]
    assert frame["val_mse"].dtype == "Float64"
    assert frame["train_samples"].dtype == "Int64"
    assert frame["is_projected"].dtype == "boolean"
    assert frame["trial_id"].dtype == "string"
    assert frame["started_at"].dtype == "datetime64[us, UTC]"
    assert frame["config/batch_size"].dtype == "Int64"
    assert isinstance(frame["config/precision"].dtype, pd.CategoricalDtype)
    assert tuple(frame["state"].cat.categories) == STATES
    assert frame["state"].cat.ordered
    assert set(frame["run"]) == {"t1"}


def test_every_state_is_a_row(tmp_path):
    frame = load_trials(make_run(tmp_path / "t1").path)

    assert len(frame) == 40
    assert set(frame["state"]) == set(STATES) - {"interrupted"} | set(frame["state"])
    assert frame.loc[frame["state"] == "out_of_memory", "val_mse"].isna().all()


def test_units_descriptions_and_reference_points_are_attributes(tmp_path):
    frame = load_trials(make_run(tmp_path / "t1").path)

    assert frame.attrs["units"]["seconds_per_epoch"] == "s"
    assert set(frame.attrs["descriptions"]) == set(frame)
    assert frame.attrs["reference_points"]["t1"] == {"seconds_per_epoch": 400.0, "val_mse": 1.0}
    assert frame.attrs["runs"]["t1"] == str(tmp_path / "t1")


def test_csv_and_parquet_agree(tmp_path):
    folder = make_run(tmp_path / "t1")
    from_parquet = load_trials(folder.path)
    folder.trials_parquet.unlink()

    pd.testing.assert_frame_equal(load_trials(folder.path), from_parquet)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "state": st.sampled_from(STATES),
                "error": TEXT,
                "source": TEXT,
                "val_mse": NUMBER,
                "train_samples": st.integers(0, 2**62),
                "is_projected": st.booleans(),
                "started_at": st.datetimes(),
                "config/precision": st.sampled_from(["fp32", "bf16"]),
                "config/prompt_digits": st.sampled_from(["full", "4", "2"]),
                "config/learning_rate": NUMBER,
                "config/use_swt": st.booleans(),
                "config/target": TEXT,
            },
        ),
        max_size=5,
    )
)
def test_whatever_is_written_comes_back_from_both_files(tmp_path, values):
    rows = [{"trial_id": f"t{index}", **row} for index, row in enumerate(values)]
    folder = RunFolder(tmp_path)
    folder.write_manifest(make_manifest())
    write_trials(folder, rows)
    expected = typed_table(rows, make_manifest().run_defaults)

    from_parquet = load_trials(tmp_path).drop(columns="run")
    folder.trials_parquet.unlink()
    from_csv = load_trials(tmp_path).drop(columns="run")

    pd.testing.assert_frame_equal(from_parquet, expected, check_like=True)
    pd.testing.assert_frame_equal(from_csv, expected, check_like=True)


def test_text_that_looks_like_a_number_stays_text_where_the_setting_is_text(tmp_path):
    rows = [{"trial_id": "a", "config/prompt_digits": "4"}, {"trial_id": "b", "config/prompt_digits": "2"}]
    folder = make_run(tmp_path / "t1", [])
    write_trials(folder, rows)
    folder.trials_parquet.unlink()

    assert load_trials(folder.path)["config/prompt_digits"].tolist() == ["4", "2"]


def test_none_is_a_word_and_not_a_missing_value(tmp_path):
    folder = make_run(tmp_path / "t1", [])
    write_trials(folder, [{"trial_id": "a", "config/prompt": "none", "config/offload_optimizer": "none"}])
    folder.trials_parquet.unlink()

    assert load_trials(folder.path)["config/prompt"].tolist() == ["none"]


def test_a_broken_parquet_file_is_replaced_by_the_csv_with_a_warning(tmp_path):
    folder = make_run(tmp_path / "t1")
    whole = load_trials(folder.path)
    folder.trials_parquet.write_bytes(folder.trials_parquet.read_bytes()[:100])

    with pytest.warns(UserWarning, match=r"trials\.parquet cannot be read.*trials\.csv is used instead"):
        pd.testing.assert_frame_equal(load_trials(folder.path), whole)


def test_two_broken_files_are_an_input_error(tmp_path):
    folder = make_run(tmp_path / "t1")
    folder.trials_parquet.write_bytes(b"no")
    folder.trials_csv.write_text("trial_id,state\na,unheard_of\n")

    with pytest.raises(InputError, match=r"trials\.parquet cannot be read.*trials\.csv cannot be read"):
        load_trials(folder.path)


def test_a_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_trials(tmp_path / "nowhere")


def test_a_run_that_has_no_trial_yet_is_an_empty_table(tmp_path):
    folder = RunFolder(tmp_path / "t1")
    folder.write_manifest(make_manifest())

    frame = load_trials(folder.path)

    assert len(frame) == 0
    assert {"trial_id", "state", "run"} <= set(frame)


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "t1")
    old = folder.trials_parquet.read_bytes(), folder.trials_csv.read_bytes()

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timellm.contract.layout.os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_trials(folder, make_rows(3))

    assert (folder.trials_parquet.read_bytes(), folder.trials_csv.read_bytes()) == old
    assert not list(folder.path.glob("*.tmp")) + list(folder.path.glob(".*.tmp"))


def test_several_runs_are_one_table(tmp_path):
    one, two = make_run(tmp_path / "one", make_rows(3)), make_run(tmp_path / "two", make_rows(5))
    write_trials(two, [{**row, "config/dropout": 0.2} for row in make_rows(5)])

    frame = load_trials([one.path, two.path])

    assert frame["run"].value_counts().to_dict() == {"two": 5, "one": 3}
    assert frame["config/dropout"].isna().sum() == 3
    assert frame.index.is_unique


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    one, two = make_run(tmp_path / "a" / "t1", make_rows(2)), make_run(tmp_path / "b" / "t1", make_rows(2))

    assert set(load_trials([one.path, two.path])["run"]) == {str(one.path), str(two.path)}


def test_naming_a_run_twice_is_refused(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(2))

    with pytest.raises(InputError, match="named once"):
        load_trials([folder.path, folder.path])


def test_no_run_is_refused():
    with pytest.raises(InputError, match="At least one run folder"):
        load_trials([])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"trial_id": "a", "loss": 1.0}, "no column loss"),
        ({"trial_id": "a", "state": "done"}, "state must be one of complete"),
        ({"trial_id": "a", "val_mse": "low"}, "val_mse must hold numbers, got 'low'"),
        ({"trial_id": "a", "train_samples": 1.5}, "train_samples must hold whole numbers"),
        ({"trial_id": "a", "is_projected": 2}, "is_projected must hold true or false"),
        ({"trial_id": "a", "started_at": "yesterday"}, "started_at must hold ISO 8601 times"),
        ({"state": "complete"}, "trial_id of its own"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        write_trials(tmp_path, [row])


def test_a_trial_id_is_used_once(tmp_path):
    with pytest.raises(ValueError, match="used twice"):
        write_trials(tmp_path, [{"trial_id": "a"}, {"trial_id": "a"}])


def test_a_table_whose_trials_cannot_be_told_apart_is_an_input_error(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(3))
    folder.trials_parquet.unlink()
    head, *rows = folder.trials_csv.read_text().splitlines()
    folder.trials_csv.write_text("\n".join([head, *rows, rows[1], rows[2].replace("t0002", "", 1)]) + "\n")

    with pytest.raises(InputError, match=r"t1/trials\.csv cannot be read .* got 1 without one and t0001 used twice"):
        load_trials(folder.path)


def test_many_repeated_trial_ids_are_named_in_part():
    with pytest.raises(ValueError, match=r"got t0, t1, t2, t3, t4 and 2 more used twice"):
        typed_table([{"trial_id": f"t{index % 7}"} for index in range(14)])


def test_nan_and_empty_text_are_missing():
    frame = typed_table([{"trial_id": "a", "val_mse": math.nan, "error": "", "config/target": None}])

    assert frame[["val_mse", "error", "config/target"]].isna().all(axis=None)


def test_a_row_of_the_factory_is_complete():
    import numpy as np

    row = make_row(0, {"compile_mode": "off", "batch_size": 32}, np.random.default_rng(0))

    assert typed_table([row])["state"].tolist() == ["complete"]
