import math

import pytest

from results.analysis.comparison import compare
from tests.results.synthetic import make_rows, make_run
from timellm.contract.errors import InputError


def twice_as_fast(rows):
    return [{**row, "seconds_per_epoch": row["seconds_per_epoch"] and row["seconds_per_epoch"] / 2} for row in rows]


def test_a_machine_twice_as_fast_is_seen(tmp_path):
    rows = make_rows(20)
    a, b = make_run(tmp_path / "a", rows), make_run(tmp_path / "b", twice_as_fast(rows))

    table = compare(a.path, b.path)

    shared = table.loc["mean seconds_per_epoch of configurations in both"]
    assert shared["ratio"] == pytest.approx(0.5)
    assert (shared["ratio_low"], shared["ratio_high"]) == pytest.approx((0.5, 0.5))
    assert table.loc["baseline seconds_per_epoch", "ratio"] == pytest.approx(0.5)
    assert table.loc["hypervolume", "ratio"] > 1
    assert table.loc["front points that the other run dominates", "b"] == 0
    assert table.loc["front points that the other run dominates", "a"] > 0
    assert table.attrs["note"].startswith("Both: 32,000 training")


def test_a_knob_one_run_lacks_takes_its_fixed_setting_there(tmp_path):
    rows = make_rows(10, failures=False)
    a = make_run(tmp_path / "a", [{**row, "config/attention": "eager"} for row in rows])
    b = make_run(tmp_path / "b", rows)

    assert compare(a.path, b.path).loc["configurations in both", "a"] == 10


def test_runs_of_different_fidelity_get_no_ratio(tmp_path):
    a = make_run(tmp_path / "a", make_rows(10))
    b = make_run(tmp_path / "b", [{**row, "is_projected": True, "train_samples": 64} for row in make_rows(10)])

    table = compare(a.path, b.path)

    assert "Not comparable" in table.attrs["note"]
    assert "hypervolume" not in table.index
    assert math.isnan(table.loc["fastest seconds_per_epoch", "ratio"])


def test_a_run_without_complete_trials_is_compared_without_failing(tmp_path):
    a, b = make_run(tmp_path / "a", make_rows(10)), make_run(tmp_path / "b", [])

    table = compare(a.path, b.path)

    assert table.loc["complete configurations"].tolist()[:2] == [9.0, 0.0]
    assert "no complete trial" in table.attrs["note"]


def test_a_missing_run_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        compare(make_run(tmp_path / "a").path, tmp_path / "b")


def assert_not_comparable(table, words):
    assert "Not comparable" in table.attrs["note"]
    assert words in table.attrs["note"]
    assert "hypervolume" not in table.index
    assert table["ratio"].isna().all()


def test_runs_on_different_data_get_no_ratio(tmp_path):
    a = make_run(tmp_path / "a", make_rows(10))
    b = make_run(tmp_path / "b", make_rows(10), data={"name": "nyc-weather", "checksum": "ffff"})

    assert_not_comparable(compare(a.path, b.path), "data checksum (ab12; ffff)")


def test_runs_with_different_language_models_get_no_ratio(tmp_path):
    a = make_run(tmp_path / "a", make_rows(10))
    config = {**a.read_manifest().run_config, "llm_model": "gpt2"}
    b = make_run(tmp_path / "b", make_rows(10), backbone={"name": "gpt2", "checksum": "ee"}, run_config=config)

    table = compare(a.path, b.path)

    assert_not_comparable(table, "model checksum (cd34; ee)")
    assert "llm_model (smollm2-135m; gpt2)" in table.attrs["note"]


@pytest.mark.parametrize(("setting", "value"), [("pred_len", 48), ("seq_len", 192), ("features", "S"), ("percent", 50)])
def test_runs_of_different_tasks_get_no_ratio(tmp_path, setting, value):
    a = make_run(tmp_path / "a", make_rows(10))
    config = {**a.read_manifest().run_config, setting: value}
    b = make_run(tmp_path / "b", make_rows(10), run_config=config)

    assert_not_comparable(compare(a.path, b.path), f"{setting} ({a.read_manifest().run_config[setting]}; {value})")


def test_one_language_model_under_two_names_is_compared(tmp_path):
    a = make_run(tmp_path / "a", make_rows(10))
    config = {**a.read_manifest().run_config, "llm_model": "/models/smollm2"}
    b = make_run(tmp_path / "b", make_rows(10), run_config=config)

    assert compare(a.path, b.path).attrs["note"].startswith("Both: ")


def test_the_default_target_and_its_name_are_one_task(tmp_path):
    a = make_run(tmp_path / "a", make_rows(5))
    data = {**a.read_manifest().data.to_dict(), "columns": ["load", "temperature"]}
    config = {**a.read_manifest().run_config, "features": "S"}
    a = make_run(tmp_path / "a", make_rows(5), data=data, run_config=config)
    same = make_run(tmp_path / "b", make_rows(5), data=data, run_config={**config, "target": "temperature"})
    other = make_run(tmp_path / "c", make_rows(5), data=data, run_config={**config, "target": "load"})

    assert compare(a.path, same.path).attrs["note"].startswith("Both: ")
    assert_not_comparable(compare(a.path, other.path), "target (temperature; load)")


def test_a_failed_baseline_is_said_and_its_substitute_gets_no_ratio(tmp_path):
    rows = make_rows(10)
    failed = {**rows[0], "state": "out_of_memory", "seconds_per_epoch": None, "val_mse": None}
    a, b = make_run(tmp_path / "a", rows), make_run(tmp_path / "b", [failed, *rows[1:]])

    table = compare(a.path, b.path)

    assert table.attrs["note"].endswith(
        "The baseline of b ended as out_of_memory, so its reference is the first complete trial, t0001."
    )
    assert "baseline seconds_per_epoch" not in table.index
    assert math.isnan(table.loc["reference seconds_per_epoch", "ratio"])
    assert table.loc["mean seconds_per_epoch of configurations in both", "ratio"] == pytest.approx(1.0)
