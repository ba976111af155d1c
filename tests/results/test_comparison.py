import math

import pytest

from results.comparison import compare
from spaces.errors import InputError
from tests.results.synthetic import make_rows, make_run


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
