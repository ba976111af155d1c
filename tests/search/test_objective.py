import math

import pytest

from search.decide.propose.objective import MEMORY, RUNS, Objective, constraints

COMPLETE = {"state": "complete", "val_mse": 0.4, "seconds_per_epoch": 100.0, "peak_memory_gib": 5.0}


def test_two_objectives_or_one_that_ranks_as_the_joint_score_does():
    assert Objective("pareto").values(COMPLETE) == [0.4, 100.0]
    slow = {**COMPLETE, "seconds_per_epoch": 500.0}
    joint = Objective("joint", 0.05)
    difference = joint.values(slow)[0] - joint.values(COMPLETE)[0]
    assert difference == pytest.approx(0.05 * math.log(5))
    assert joint.names == ["log_val_mse_plus_0.05_log_seconds_per_epoch"]


def test_a_study_keeps_the_error_first_as_stored_studies_have_it():
    assert Objective().names == ["val_mse", "seconds_per_epoch"]
    assert Objective().worst([]) == [1.0, 60.0]


@pytest.mark.parametrize(
    "change",
    [{"state": "failed"}, {"val_mse": None}, {"val_mse": math.nan}, {"seconds_per_epoch": math.inf}, {"val_mse": 0.0}],
)
def test_a_row_without_finite_objectives_has_none(change):
    assert Objective().values({**COMPLETE, **change}) is None


def test_a_failure_is_told_the_worst_values_seen():
    assert Objective().worst([[0.4, 100.0], [0.3, 200.0]]) == [0.4, 200.0]
    assert all(map(math.isfinite, Objective().worst([])))
    assert len(Objective("joint").worst([])) == 1


def test_memory_is_a_constraint_with_its_size():
    assert constraints(COMPLETE, 10.0) == {RUNS: -1.0, MEMORY: -0.5}
    assert constraints({**COMPLETE, "peak_memory_gib": 15.0}, 10.0)[MEMORY] == 0.5
    out_of_memory = {"state": "out_of_memory", "peak_memory_gib": 9.0}
    assert constraints(out_of_memory, 10.0) == {RUNS: 1.0, MEMORY: 0.05}
    assert constraints({"state": "failed", "peak_memory_gib": None}, 10.0) == {RUNS: 1.0, MEMORY: 0.0}
    assert constraints(COMPLETE, None) == {RUNS: -1.0}
