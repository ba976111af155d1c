import contextlib
import dataclasses
import itertools
import math
import os
import sqlite3

import pytest
from optuna.trial import TrialState

from search.decide.propose.objective import Objective
from search.decide.propose.samplers import SAMPLERS, make_sampler
from search.decide.propose.storage import set_damaged_aside
from search.decide.propose.study import SearchStudy, StudyOptions
from spaces import Knob, Space
from spaces.space import Exclusion

SPACE = Space(
    name="test",
    knobs=(
        Knob(name="precision", values=("fp32", "bf16")),
        Knob(name="batch_size", values=(8, 16, 32)),
        Knob(name="llm_layers", values=(1, 2, 3, 4)),
    ),
    baseline={"precision": "fp32", "batch_size": 32, "llm_layers": 4},
    plans={"plan-a": {"precision": "bf16", "batch_size": 32, "llm_layers": 4}},
)


def make(space=SPACE, sampler="random", rows=(), **options):
    return SearchStudy(
        space, StudyOptions(name="test", sampler=make_sampler(sampler, space, 0), limit_gib=10.0, **options), rows
    )


def row_of(proposal, state="complete", **values):
    settings = proposal.settings
    good = {
        "val_mse": 0.4 + 0.01 * settings["llm_layers"] + 0.001 * settings["batch_size"],
        "seconds_per_epoch": 10.0 * settings["llm_layers"] * (2 if settings["precision"] == "fp32" else 1),
        "peak_memory_gib": 0.1 * settings["batch_size"],
    }
    return {
        "trial_id": proposal.trial_id,
        "source": proposal.source,
        "state": state,
        **(good if state == "complete" else dict.fromkeys(good)),
        **{f"config/{name}": value for name, value in settings.items()},
        **values,
    }


def run_all(study, end=row_of, most=1000):
    rows = []
    while len(rows) < most and (proposal := study.propose()) is not None:
        rows.append(end(proposal))
        study.finish(proposal.trial_id, rows[-1])
    return rows


def test_the_baseline_and_the_plans_come_first():
    rows = run_all(make(), most=3)
    assert [row["source"] for row in rows] == ["baseline", "plan-a", "sampler"]
    assert [row["trial_id"] for row in rows] == ["t0001", "t0002", "t0003"]
    assert rows[0]["config/batch_size"] == 32
    assert rows[1]["config/precision"] == "bf16"


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
def test_a_finite_space_is_tried_out_without_a_repeat(sampler):
    study = make(sampler=sampler)
    rows = run_all(study)
    tried = {tuple(row[f"config/{knob.name}"] for knob in SPACE.knobs) for row in rows}
    assert len(rows) == len(tried) == 24
    assert {trial.state for trial in study.study.trials} <= {TrialState.COMPLETE, TrialState.FAIL}


def test_the_sampler_is_not_asked_where_nothing_is_left():
    study = make()
    rows = run_all(study)
    fixed = {"batch_size": 8, "llm_layers": 1}
    asked = len(study.study.trials)
    assert (len(rows), study.propose(fixed)) == (24, None)
    assert len(study.study.trials) == asked


def test_the_first_trials_come_before_knobs_that_are_fixed():
    study = make()
    assert study.propose({"batch_size": 8, "llm_layers": 1}).source == "baseline"


def test_the_gp_sampler_takes_failures_and_constraints():
    study = make(sampler="gp")
    rows = run_all(study, end=lambda p: row_of(p, "failed" if p.settings["llm_layers"] == 2 else "complete"), most=10)
    assert len(rows) == 10


def test_the_gp_sampler_learns_knobs_under_a_condition_too(caplog):
    swt_level = Knob(name="swt_level", values=(1, 2, 3, 4), when={"precision": ("bf16",)})
    space = dataclasses.replace(
        SPACE, knobs=(*SPACE.knobs, swt_level), baseline={**SPACE.baseline, "swt_level": 1}, plans={}
    )

    def end(proposal):
        return row_of(proposal, val_mse=0.4 + 0.2 * proposal.settings["swt_level"])

    rows = run_all(make(space, sampler="gp"), end=end, most=14)
    assert len(rows) == 14
    assert {row["config/swt_level"] for row in rows if row["config/precision"] == "fp32"} == {1}
    assert len({row["config/swt_level"] for row in rows if row["config/precision"] == "bf16"}) > 1
    assert not caplog.records


def test_excluded_and_refused_settings_are_never_proposed():
    space = dataclasses.replace(
        SPACE, exclusions=(Exclusion(settings={"precision": "bf16", "batch_size": 8}, reason="Too rough."),)
    )
    study = make(space, refusal=lambda settings, source: "No." if settings["llm_layers"] == 3 else None)
    rows = run_all(study)
    assert len(rows) == (2 * 3 - 1) * 3
    assert not any(row["config/precision"] == "bf16" and row["config/batch_size"] == 8 for row in rows)


def test_failures_are_told_finite_and_infeasible():
    states = itertools.cycle(["complete", "failed", "out_of_memory", "diverged"])
    study = make()
    rows = run_all(study, end=lambda proposal: row_of(proposal, next(states)))
    for trial in study.study.trials:
        if trial.state == TrialState.COMPLETE:
            assert all(map(math.isfinite, trial.values))
            assert set(trial.constraints) == {"runs", "peak_memory"}
            if "state" in trial.user_attrs:
                is_feasible = all(value <= 0 for value in trial.constraints.values())
                assert is_feasible == (trial.user_attrs["state"] == "complete")
    assert len(rows) == 24


def test_a_failure_is_not_on_the_front_of_the_study():
    study = make()
    run_all(study, end=lambda proposal: row_of(proposal, "failed" if proposal.source == "sampler" else "complete"))
    assert {trial.user_attrs["source"] for trial in study.study.best_trials if "source" in trial.user_attrs} <= {
        "baseline",
        "plan-a",
    }


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_same_measurements_give_the_same_search(sampler):
    first, second = (run_all(make(sampler=sampler), most=15) for _ in range(2))
    assert first == second


def test_several_open_proposals_differ():
    study = make()
    proposals = [study.propose() for _ in range(10)]
    assert len({tuple(proposal.settings.items()) for proposal in proposals}) == 10


def test_the_joint_objective_is_one_number():
    study = make(objective=Objective("joint", 0.05))
    run_all(study, most=5)
    assert study.study.best_trial.value < 0 or math.isfinite(study.study.best_trial.value)


def test_a_resumed_study_repeats_what_was_not_ended_under_its_name(tmp_path):
    storage = tmp_path / "study.db"
    first = make(storage=storage)
    rows = run_all(first, most=4)
    rows[3]["state"] = "interrupted"
    running = first.propose()
    second = make(storage=storage, rows=rows)
    assert not [trial for trial in second.study.trials if trial.state == TrialState.RUNNING]
    again = run_all(second, most=2)
    assert {row["trial_id"] for row in again} == {"t0004", running.trial_id}
    assert {tuple(row[f"config/{knob.name}"] for knob in SPACE.knobs) for row in again} == {
        tuple(rows[3][f"config/{knob.name}"] for knob in SPACE.knobs),
        tuple(running.settings[knob.name] for knob in SPACE.knobs),
    }
    rest = run_all(second)
    assert len(rows) - 1 + len(again) + len(rest) == 24
    names = [row["trial_id"] for row in [*rows[:3], *again, *rest]]
    assert len(set(names)) == len(names)


def test_a_row_that_the_study_was_not_told_of_is_taken_over(tmp_path):
    storage = tmp_path / "study.db"
    first = make(storage=storage)
    rows = run_all(first, most=2)
    written = row_of(first.propose())
    second = make(storage=storage, rows=[*rows, written])
    told = [trial for trial in second.study.trials if trial.user_attrs.get("trial_id") == "t0003"]
    assert {trial.state for trial in told} == {TrialState.FAIL, TrialState.COMPLETE}
    assert len(run_all(second)) == 21


def test_a_study_stopped_before_its_first_trial_still_starts_with_the_baseline(tmp_path):
    storage = tmp_path / "study.db"
    make(storage=storage)
    assert make(storage=storage).propose().source == "baseline"


def test_a_range_has_no_end():
    space = Space(name="r", knobs=(Knob(name="dropout", low=0.0, high=0.5),), baseline={"dropout": 0.1})

    def end(proposal):
        return {
            "trial_id": proposal.trial_id,
            "state": "complete",
            "val_mse": 1.0 + proposal.settings["dropout"],
            "seconds_per_epoch": 1.0,
            "peak_memory_gib": 1.0,
            "config/dropout": proposal.settings["dropout"],
        }

    assert len(run_all(make(space, sampler="tpe"), end=end, most=30)) == 30


def test_another_search_informs_the_sampler_without_being_part_of_this_one():
    earlier = run_all(make(), most=10)
    earlier.append({**earlier[0], "trial_id": "t0099", "config/batch_size": 7})
    study = make(sampler="tpe")
    assert study.inform(earlier, "before") == 10
    rows = run_all(study)
    assert len(rows) == 24
    assert sum("warm_start" in trial.user_attrs for trial in study.study.trials) == 10


def test_a_fixed_whole_number_is_known_again_from_a_table_that_keeps_it_as_a_float():
    space = dataclasses.replace(SPACE, fixed={"dropout": 0})
    rows = [{**row, "config/dropout": 0.0} for row in run_all(make(space))]
    assert len(rows) == 24
    assert make(space, rows=rows).propose() is None
    assert make(space).inform(rows, "earlier") == 24


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_may_be_large(name):
    assert make_sampler(name, SPACE, 2**32 + 3) is not None


def damage(path, how):
    if how == "garbage":
        path.write_bytes(b"no database" * 100)
    elif how == "cut off":
        path.write_bytes(path.read_bytes()[:20_000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how in SQL:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(SQL[how])
            connection.commit()
    else:
        path.unlink()
        places = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}
        places |= {"endless": lambda: path.symlink_to("/dev/zero"), "missing": lambda: None}
        places[how]()


SQL = {
    "no column": "ALTER TABLE trials RENAME COLUMN state TO was",
    "maximised": "UPDATE study_directions SET direction = 'MAXIMIZE'",
    "one objective": "DELETE FROM study_directions WHERE objective = 1",
    "no distributions": "UPDATE trial_params SET distribution_json = '{}'",
    "odd attributes": "UPDATE trial_user_attributes SET value_json = '7'",
    "no attributes": "UPDATE trial_user_attributes SET value_json = '{'",
    "odd state": "UPDATE trials SET state = 'x'",
    "renamed": "UPDATE studies SET study_name = 'another'",
}
PLACES = ["garbage", "cut off", "empty", "folder", "missing", "pipe", "loop", "endless"]


@pytest.mark.parametrize("how", [*PLACES, *SQL])
def test_a_damaged_study_is_rebuilt_from_the_table(tmp_path, how):
    storage = tmp_path / "study.db"
    first = make(storage=storage)
    rows = run_all(first, most=5)
    rows[4]["state"] = "interrupted"
    first.close()
    damage(storage, how)
    assert "rebuilt from the table" in set_damaged_aside(storage, "test", 2)
    second = make(storage=storage, rows=rows)
    told = {trial.user_attrs["trial_id"] for trial in second.study.trials if trial.state == TrialState.COMPLETE}
    assert told == {row["trial_id"] for row in rows[:4]}
    assert second.propose().trial_id == rows[4]["trial_id"]
    assert set_damaged_aside(storage, "test", 2) is None


def test_a_table_of_other_names_does_not_confuse_the_numbers():
    rows = [{**row, "trial_id": f"foo{index}"} for index, row in enumerate(run_all(make(), most=3))]
    assert make(rows=rows).propose().trial_id == "t0001"
