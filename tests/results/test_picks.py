import pytest

from results.analysis.picks import recommend
from results.analysis.table import typed_table
from tests.results.synthetic import confirm, make_manifest, make_rows


def recommended(rows, **manifest):
    return recommend(typed_table(rows), make_manifest(**manifest))


def set_objectives(row, seconds, mse):
    return {**row, "seconds_per_epoch": seconds, "val_mse": mse}


@pytest.fixture
def rows():
    """Baseline, a fast one just within the tolerance, a faster one beyond it, the most accurate one, a bargain."""
    base = make_rows(5, failures=False)
    values = [(100.0, 0.400), (40.0, 0.4079), (30.0, 0.4085), (90.0, 0.390), (20.0, 0.412)]
    return [set_objectives(row, *pair) for row, pair in zip(base, values, strict=True)]


def test_the_fastest_pick_keeps_the_stated_tolerance(rows):
    pick = recommended(rows).pick("fastest")

    assert pick.trial_id == "t0001"
    assert "at most 2 % above the baseline's" in pick.reason
    assert "The fastest of the 3 of 5 complete configurations" in pick.reason


def test_the_accurate_pick_has_the_least_mse(rows):
    pick = recommended(rows).pick("accurate")

    assert pick.trial_id == "t0003"
    assert pick.mse_change == pytest.approx(-2.5)
    assert "lowest validation MSE of 5 complete configurations, 0.3900" in pick.reason


def test_the_balanced_pick_has_the_best_joint_score_at_the_runs_weight(rows):
    assert recommended(rows, time_weight=0.05).pick("balanced").trial_id == "t0004"
    assert recommended(rows, time_weight=0.0001).pick("balanced").trial_id == "t0003"
    assert "At time weight 0.05, five times faster makes up for 8.4 % more MSE." in (
        recommended(rows).pick("balanced").reason
    )


def test_at_weight_zero_time_does_not_count(rows):
    pick = recommended(rows, time_weight=0).pick("balanced")

    assert pick.trial_id == "t0003"
    assert "At time weight 0," in pick.reason


def test_a_pick_lists_the_settings_that_differ(rows):
    row = rows[1]
    changes = {knob: (value, was) for knob, value, was in recommended(rows).pick("fastest").changes}

    assert changes["precision"] == ("bf16", "fp32")
    assert all(str(row[f"config/{knob}"]) == value for knob, (value, _) in changes.items())


def test_nothing_beats_the_baseline_is_known():
    rows = [set_objectives(row, 100.0 + i, 0.4 + i / 100) for i, row in enumerate(make_rows(5, failures=False))]

    recommendation = recommended(rows)

    assert not recommendation.beats_baseline
    assert [pick.trial_id for pick in recommendation.picks] == ["t0000"] * 4
    assert "it is the baseline itself" in recommendation.pick("balanced").reason


def test_an_interval_joins_those_of_both_times(rows):
    speedup = recommended(rows).pick("fastest").speedup

    assert speedup.value == pytest.approx(2.5)
    assert speedup.low < 2.5 < speedup.high


def test_an_unknown_interval_is_left_out(rows):
    for row in rows:
        row["seconds_per_epoch_low"] = row["seconds_per_epoch_high"] = None

    pick = recommended(rows).pick("fastest")

    assert not pick.speedup.is_known
    assert "interval" not in pick.reason


def test_the_spread_over_seeds_is_known_from_repeats(rows):
    one_seed = recommended(rows).pick("fastest")
    repeated = recommended([*rows, *confirm(rows, "t0000"), *confirm(rows, "t0001")]).pick("fastest")

    assert one_seed.mse_std != one_seed.mse_std  # NaN
    assert 0 < repeated.mse_std < 2
    assert "95 % interval" in repeated.error_words
    assert one_seed.error_words == "+2.0 % (not shown)"


def test_projected_picks_are_preliminary_until_confirmed(rows):
    short = [{**row, "is_projected": True, "train_samples": 512} for row in rows]

    before = recommended(short)
    repeats = [row for pick in before.picks for row in confirm(short, pick.trial_id)]
    after = recommended([*short, *repeats])

    assert [pick.name for pick in before.picks if not pick.is_preliminary] == ["exact"]
    assert any(caveat.startswith("Preliminary") for caveat in before.caveats)
    assert not any(pick.is_preliminary for pick in after.picks)
    assert not any("Preliminary" in caveat for caveat in after.caveats)


def test_whole_runs_are_not_preliminary(rows):
    assert not any(pick.is_preliminary for pick in recommended(rows).picks)


def test_a_failed_baseline_is_said(rows):
    rows[0] |= {"state": "out_of_memory", "seconds_per_epoch": None, "val_mse": None}

    recommendation = recommended(rows)

    assert recommendation.caveats[0] == (
        "The baseline ended as out_of_memory, so every ratio refers to the first complete trial, t0001."
    )
    assert "baseline" not in recommendation.pick("fastest").reason


def test_a_complete_baseline_of_another_fidelity_is_said(rows):
    rows[0] |= {"is_projected": True, "train_samples": 64}

    assert recommended(rows).caveats[0] == (
        "The baseline has another fidelity, so every ratio refers to the first complete trial, t0001."
    )


def test_a_complete_baseline_without_usable_figures_is_said(rows):
    rows[0] |= {"seconds_per_epoch": None}

    assert recommended(rows).caveats[0].startswith("The baseline has no usable figures, so every ratio")


def test_a_baseline_that_was_not_run_is_said(rows):
    assert recommended(rows[1:]).caveats[0].startswith("The baseline was not run, so every ratio")


def test_a_control_that_no_trial_beats_is_said(rows):
    controls = [{"name": "window mean", "val_mse": 0.35}, {"name": "last value", "val_mse": 0.395}]

    telling, *caveats = recommended(rows, controls=controls).caveats

    assert telling.startswith("Errors are not telling: the baseline's is 14.3 % above the forecast 'window mean'")
    assert caveats == [
        "The control window mean (0.3500) has a lower validation MSE than every trial (the best trial, t0003, has "
        "0.3900): the settings do not fit the data yet, or the trials were too short to tell.",
    ]


def test_controls_that_the_balanced_pick_does_not_beat_are_said(rows):
    controls = [{"name": "window mean", "val_mse": 0.41}, {"name": "no language model", "val_mse": 0.395}]

    _, caveat = recommended(rows, controls=controls).caveats

    assert caveat.startswith("The controls window mean (0.4100), no language model (0.3950) have a lower")
    assert "than the balanced pick, 0.4120 (the best trial, t0003, has 0.3900)" in caveat


def test_controls_that_are_beaten_need_no_caveat(rows):
    assert recommended(rows, controls=[{"name": "last value", "val_mse": 0.5}]).caveats == ()


def test_contended_picks_and_random_weights_are_said(rows):
    rows[1]["timing_quality"] = "contended"
    run_config = {**make_manifest().run_config, "llm_weights": "random"}

    caveats = " ".join(recommended(rows, run_config=run_config).caveats)

    assert "t0001" in caveats
    assert "random weights" in caveats


def test_rows_of_another_fidelity_are_not_recommended(rows):
    odd = {**set_objectives(rows[1], 0.1, 0.01), "trial_id": "odd", "is_projected": True, "train_samples": 8}

    assert "odd" not in {pick.trial_id for pick in recommended([*rows, odd]).picks}


def test_no_complete_trial_means_no_pick():
    recommendation = recommended([{"trial_id": "a", "state": "failed"}])

    assert recommendation.picks == ()
    assert not recommendation.beats_baseline


def test_exact_is_the_fastest_way_to_compute_the_baselines_numbers(rows):
    knobs = {"config/prompt_prefix": "reuse", "config/num_workers": 2}
    rows += [{**set_objectives(rows[0], 60.0, 0.4), "trial_id": "same", "source": "sampler", **knobs}]
    rows += [{**set_objectives(rows[0], 20.0, 0.4), "trial_id": "other", "source": "sampler", "config/llm_layers": 2}]

    pick = recommended(rows).pick("exact")

    assert pick.trial_id == "same"
    assert pick.speedup.value == pytest.approx(100 / 60)
    assert pick.error_words == "the same numbers"
    assert not pick.is_preliminary


def timed_only(row, seconds):
    """A row that was timed, its error left out."""
    return {**row, "state": "stopped_early", "seconds_per_epoch": seconds, "val_mse": None, "val_mae": None}


def test_exact_needs_no_error(rows):
    rows = [
        timed_only(rows[0], 100.0),
        {**timed_only(rows[0], 25.0), "trial_id": "same", "source": "sampler", "config/prompt_prefix": "reuse"},
    ]

    recommendation = recommended(rows)

    assert [pick.name for pick in recommendation.picks] == ["exact"]
    assert recommendation.headline.trial_id == "same"
    assert recommendation.headline.speedup.value == pytest.approx(4.0)


def test_exact_needs_a_timed_baseline(rows):
    rows[0] |= {"state": "failed", "seconds_per_epoch": None, "val_mse": None}

    assert [pick.name for pick in recommended(rows).picks] == ["fastest", "balanced", "accurate"]


def test_where_errors_are_not_telling_exact_comes_first_and_no_error_is_claimed(rows):
    recommendation = recommended(rows, controls=[{"name": "window mean", "val_mse": 0.35}])

    assert not recommendation.verdict.telling.holds
    assert recommendation.headline.name == "exact"
    assert {pick.error_words for pick in recommendation.picks} == {"the same numbers", "not telling"}
    assert not any("% validation MSE" in pick.reason for pick in recommendation.picks)


def test_a_control_is_held_against_the_lowest_error_although_it_is_not_the_accurate_pick(rows):
    short = [{**row, "is_projected": True, "train_samples": 2048} for row in rows]
    busy = {**set_objectives(short[0], 100.0, 0.2), "trial_id": "busy", "source": "sampler", "config/batch_size": 8}
    controls = [{"name": "window mean", "val_mse": 0.19}, {"name": "last value", "val_mse": 0.3}]

    found = recommended([*short, busy], controls=controls)

    assert found.pick("accurate").trial_id == "t0003"
    (caveat,) = (text for text in found.caveats if text.startswith("The control"))
    assert "The control window mean (0.1900) has a lower validation MSE than every trial" in caveat
    assert "(the best trial, busy, has 0.2000)" in caveat


def test_a_lower_error_by_more_steps_alone_is_not_accurate(rows):
    short = [{**row, "is_projected": True, "train_samples": 2048} for row in rows]
    busy = {**set_objectives(short[0], 100.0, 0.2), "trial_id": "busy", "source": "sampler", "config/batch_size": 8}

    assert recommended([*short, busy]).pick("accurate").trial_id == "t0003"
    whole = [{**row, "is_projected": False, "train_samples": 32_000} for row in [*short, busy]]
    assert recommended(whole).pick("accurate").trial_id == "busy"
