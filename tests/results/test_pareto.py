import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from results.analysis.pareto import (
    add_scores,
    average_repeats,
    hypervolume,
    hypervolume_over_time,
    joint_score,
    mark_pareto,
    pareto_front,
    reference_rows,
)
from results.analysis.table import load_trials, typed_table
from tests.results.synthetic import confirm, make_rows, make_run
from timellm.contract.columns import FIDELITY
from timellm.contract.errors import InputError

REFERENCE = {"seconds_per_epoch": 100.0, "val_mse": 2.0}
# Few distinct values, so that ties are common.
SECONDS, MSE = st.sampled_from([1.0, 2.0, 5.0, 20.0, 90.0, 150.0]), st.sampled_from([0.1, 0.2, 0.5, 1.0, 3.0])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "state": st.sampled_from(["complete", "complete", "complete", "failed", "out_of_memory", "stopped_early"]),
            "seconds_per_epoch": st.one_of(st.none(), SECONDS, st.just(math.inf)),
            "val_mse": st.one_of(st.none(), MSE, st.just(0.0)),
            "is_projected": st.booleans(),
            "train_samples": st.sampled_from([None, 64, 128]),
        }
    ),
    max_size=14,
)


def numbered(rows):
    return [{"trial_id": f"t{i}", "config/knob": i, **row} for i, row in enumerate(rows)]


def is_usable(row):
    values = row["seconds_per_epoch"], row["val_mse"]
    return row["state"] == "complete" and all(value is not None and 0 < value < math.inf for value in values)


def dominates(one, other):
    pairs = [(one[name], other[name]) for name in ("seconds_per_epoch", "val_mse")]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@settings(deadline=None, max_examples=150)
@given(rows=ROWS)
def test_the_front_equals_brute_force_in_every_fidelity(rows):
    rows = numbered(rows)
    expected = set()
    for row in filter(is_usable, rows):
        rivals = [r for r in rows if is_usable(r) and all(r.get(name) == row.get(name) for name in FIDELITY)]
        if not any(dominates(rival, row) for rival in rivals):
            expected.add((row["is_projected"], row["train_samples"], row["seconds_per_epoch"], row["val_mse"]))

    front = pareto_front(typed_table(rows))

    columns = ["is_projected", "train_samples", "seconds_per_epoch", "val_mse"]
    found = [tuple(None if pd.isna(v) else v for v in row) for row in front[columns].itertuples(index=False)]
    assert set(found) == expected
    assert len(found) == len(set(found))


@settings(deadline=None, max_examples=150)
@given(rows=ROWS)
def test_hypervolume_equals_the_area_under_a_staircase(rows):
    rows = [{**row, "is_projected": False, "train_samples": None} for row in numbered(rows)]
    corner = [math.log(REFERENCE["seconds_per_epoch"]), math.log(REFERENCE["val_mse"])]
    points = [(math.log(row["seconds_per_epoch"]), math.log(row["val_mse"])) for row in rows if is_usable(row)]
    area, ceiling = 0.0, corner[1]
    for x, y in sorted(points):
        if x < corner[0] and y < ceiling:
            area += (corner[0] - x) * (ceiling - y)
            ceiling = y

    assert hypervolume(typed_table(rows), REFERENCE) == pytest.approx(area, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(points=st.lists(st.tuples(st.floats(0.5, 200), st.floats(0.05, 3)), max_size=12))
@example(points=[(0.5000000000000001, 1.0), (0.5, 1.5)])  # rounding took a bit away
def test_hypervolume_over_time_never_falls_and_ends_at_the_hypervolume(points):
    rows = [
        {
            "state": "complete",
            "seconds_per_epoch": seconds,
            "val_mse": mse,
            "started_at": f"2026-01-01T00:00:{i:02d}+00:00",
            "total_seconds": 1.0,
        }
        for i, (seconds, mse) in enumerate(points)
    ]
    frame = typed_table(numbered(rows))

    growth = hypervolume_over_time(frame, REFERENCE)

    assert len(growth) == len(points)
    assert growth["hypervolume"].is_monotonic_increasing
    assert growth["elapsed_seconds"].tolist() == [i + 1.0 for i in range(len(points))]
    if points:
        assert growth["hypervolume"].iloc[-1] == pytest.approx(hypervolume(frame, REFERENCE))


def test_failed_trials_count_in_the_trials_of_the_growth():
    rows = make_rows(16)

    growth = hypervolume_over_time(typed_table(rows), REFERENCE | {"seconds_per_epoch": 400.0})

    assert growth["trials"].max() == 15  # the last of the 16 failed
    assert len(growth) == 14


def test_repeats_count_once_with_their_mean():
    rows = make_rows(3, failures=False)
    repeats = confirm(rows, "t0001", 2)
    frame = typed_table(rows + repeats)

    merged = average_repeats(frame).set_index("trial_id")

    values = [row["val_mse"] for row in [rows[1], *repeats]]
    assert len(merged) == 3
    assert merged.loc["t0001", "val_mse"] == pytest.approx(np.mean(values))
    assert merged.loc["t0001", "val_mse_std"] == pytest.approx(np.std(values, ddof=1))
    assert (merged.loc["t0001", "repeats"], merged.loc["t0001", "confirmations"]) == (3, 2)
    assert merged.loc["t0001", "source"] == "plan-a"
    assert merged.loc["t0000", "repeats"] == 1
    assert pd.isna(merged.loc["t0000", "val_mse_std"])


def test_a_confirmation_that_comes_first_does_not_take_the_place_of_its_trial():
    rows = make_rows(3, failures=False)

    merged = average_repeats(typed_table(confirm(rows, "t0001") + rows))

    assert set(merged["trial_id"]) == {"t0000", "t0001", "t0002"}


def test_seeds_as_a_knob_are_repeats_too():
    rows = make_rows(2, failures=False)
    again = {**rows[1], "trial_id": "again", "config/seed": 1}

    assert len(average_repeats(typed_table([*rows, {**rows[1], "config/seed": 2, "trial_id": "b"}, again]))) == 2


def test_rows_of_other_knobs_or_fidelity_are_no_repeats():
    rows = make_rows(2, failures=False)
    rows += [{**rows[1], "trial_id": "short", "is_projected": True, "train_samples": 64}]

    assert len(average_repeats(typed_table(rows))) == 3


def test_marking_marks_each_configuration_of_the_front_once():
    rows = make_rows(30)
    rows += confirm(rows, "t0000")

    marked = [row["trial_id"] for row in mark_pareto(rows) if row["is_pareto"]]

    assert sorted(marked) == sorted(pareto_front(typed_table(rows))["trial_id"])
    assert all(row["is_pareto"] is False for row in mark_pareto(rows) if row["state"] != "complete")


def test_joint_score_is_in_ratios_to_the_baseline():
    rows = make_rows(2, failures=False)
    frame = typed_table(rows)
    mse, seconds = (math.log(rows[1][name] / rows[0][name]) for name in ("val_mse", "seconds_per_epoch"))

    score = joint_score(frame, 0.2)

    assert score.tolist() == pytest.approx([0.0, mse + 0.2 * seconds])


def test_at_the_default_weight_five_times_faster_makes_up_for_8_percent_more_mse():
    rows = make_rows(2, failures=False)
    base = rows[0]
    rows[1] = {**rows[1], "seconds_per_epoch": base["seconds_per_epoch"] / 5, "val_mse": base["val_mse"] * 1.0837}

    assert joint_score(typed_table(rows))[1] == pytest.approx(0.0, abs=1e-3)


def test_scores_without_something_to_compare_are_missing():
    rows = make_rows(16)
    rows.append({**rows[0], "trial_id": "odd", "source": "sampler", "state": "failed"})

    scored = {row["trial_id"]: row for row in add_scores(rows)}

    assert scored["odd"]["joint_score"] is None
    assert scored["t0007"]["speedup_vs_baseline"] is None
    assert scored["t0000"]["speedup_vs_baseline"] == pytest.approx(1.0)


def test_a_failed_baseline_is_stood_in_for_by_the_first_complete_trial():
    rows = make_rows(6, failures=False)
    rows[0] |= {"state": "out_of_memory", "val_mse": None, "seconds_per_epoch": None}

    assert reference_rows(typed_table(rows))["trial_id"].tolist() == ["t0001"]


def test_each_fidelity_has_its_own_baseline():
    rows = make_rows(3, failures=False)
    short = [
        {**row, "trial_id": f"s{i}", "is_projected": True, "train_samples": 64, "val_mse": 9.0 + i}
        for i, row in enumerate(rows)
    ]

    scores = joint_score(typed_table(rows + short), 0.0)

    assert scores.tolist()[3:] == pytest.approx([math.log((9 + i) / 9) for i in range(3)])


def test_a_hypervolume_of_several_fidelities_is_refused():
    rows = make_rows(3, failures=False)
    rows[1] |= {"is_projected": True}

    with pytest.raises(InputError, match="rows of one fidelity, got 2"):
        hypervolume(typed_table(rows), REFERENCE)


def test_the_reference_point_comes_from_the_manifest(tmp_path):
    frame = load_trials(make_run(tmp_path / "t1").path)

    assert hypervolume(frame) == hypervolume(frame, {"seconds_per_epoch": 400.0, "val_mse": 1.0}) > 0


def test_a_missing_reference_point_is_said(tmp_path):
    frame = load_trials(make_run(tmp_path / "t1", reference_point=None).path)

    with pytest.raises(InputError, match="needs one reference point, got 0"):
        hypervolume(frame)
    with pytest.raises(InputError, match="positive seconds_per_epoch and val_mse"):
        hypervolume(frame, {"val_mse": 1.0})


def test_an_empty_table_has_an_empty_front_and_no_volume():
    frame = typed_table([])

    assert len(pareto_front(frame)) == 0
    assert hypervolume(frame, REFERENCE) == 0.0
    assert len(hypervolume_over_time(frame, REFERENCE)) == 0
    assert len(joint_score(frame)) == 0


def test_runs_have_fronts_of_their_own(tmp_path):
    one, two = make_run(tmp_path / "one", make_rows(10)), make_run(tmp_path / "two", make_rows(10, seed=1))

    both = pareto_front(load_trials([one.path, two.path]))

    assert len(both) == sum(len(pareto_front(load_trials(folder.path))) for folder in (one, two))


def test_rows_without_a_start_are_left_out_of_the_growth():
    rows = make_rows(6, failures=False)
    rows[2]["started_at"] = None

    growth = hypervolume_over_time(typed_table(rows), REFERENCE | {"seconds_per_epoch": 400.0})

    assert set(growth["trial_id"]) == {"t0000", "t0001", "t0003", "t0004", "t0005"}
    assert growth["elapsed_seconds"].notna().all()


def test_a_table_without_any_start_has_no_growth():
    rows = [{**row, "started_at": None} for row in make_rows(3)]

    assert hypervolume_over_time(typed_table(rows), REFERENCE).empty
