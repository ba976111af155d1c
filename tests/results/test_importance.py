import logging

import optuna
import pytest

from results.analysis.importance import knob_importance
from results.analysis.table import typed_table
from tests.results.synthetic import make_rows


@pytest.fixture(scope="module")
def frame():
    return typed_table(make_rows(90))


@pytest.mark.parametrize("evaluator", ["fanova", "ped-anova"])
def test_importances_find_the_planted_knobs(frame, evaluator):
    importance = knob_importance(frame, evaluator).set_index("knob")

    assert {"prompt_prefix", "llm_layers"} <= set(importance["seconds_per_epoch"].nlargest(3).index)
    assert set(importance["val_mse"].nlargest(2).index) == {"llm_layers", "batch_size"}
    assert importance.loc["num_workers", "seconds_per_epoch"] < 0.05
    assert importance.sum().tolist() == pytest.approx([1.0, 1.0])


def test_importances_are_reproducible(frame):
    assert knob_importance(frame).equals(knob_importance(frame))


def test_too_few_configurations_are_not_enough_data():
    importance = knob_importance(typed_table(make_rows(8)))

    assert importance.empty
    assert importance.attrs["note"] == "Not enough data: importances need 12 complete configurations, got 7."


def test_one_varied_knob_is_not_enough_data():
    rows = [{**row, "config/batch_size": i} for i, row in enumerate(make_rows(20, failures=False))]
    for row in rows:
        row |= {name: rows[0][name] for name in row if name.startswith("config/") and name != "config/batch_size"}

    importance = knob_importance(typed_table(rows))

    assert importance.attrs["note"] == "Not enough data: importances need 2 knobs that vary, got 1."


def test_a_knob_that_some_trials_lack_is_handled(frame):
    rows = make_rows(40)
    for index, row in enumerate(rows):
        row["config/swt_level"] = 3 if index % 2 else None

    assert "swt_level" in set(knob_importance(typed_table(rows))["knob"])


def test_an_objective_that_never_changes_has_no_important_knob():
    rows = [{**row, "val_mse": 0.5} for row in make_rows(30, failures=False)]

    assert (knob_importance(typed_table(rows))["val_mse"] == 0).all()


def test_optunas_log_is_left_as_it_was(frame, capsys):
    optuna.logging.set_verbosity(logging.INFO)

    knob_importance(frame)

    assert optuna.logging.get_verbosity() == logging.INFO
    assert "study" not in capsys.readouterr().err
