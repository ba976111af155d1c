import pytest

from results.analysis.effects import NOT_ENOUGH, main_effects
from results.analysis.table import typed_table
from tests.results.synthetic import ACCURACY, SPEED, make_rows


def effect(table, knob, value, objective="seconds_per_epoch"):
    rows = table[(table["knob"] == knob) & (table["value"] == value) & (table["objective"] == objective)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize("trials", [40, 190])
def test_planted_effects_are_recovered(trials):
    table = main_effects(typed_table(make_rows(trials)))

    for objective, planted, margin in (("seconds_per_epoch", SPEED, 0.03), ("val_mse", ACCURACY, 0.006)):
        for knob in SPEED:
            factors = planted.get(knob, dict.fromkeys(SPEED[knob], 1.0))
            reference = 32 if knob == "batch_size" else 6 if knob == "llm_layers" else next(iter(factors))
            for value, factor in factors.items():
                if value != reference:
                    found = effect(table, knob, value, objective)
                    assert found["ratio"] == pytest.approx(factor, rel=margin)
                    assert found["reference"] == reference


def test_intervals_of_pairs_cover_the_planted_effect_most_of_the_time():
    covered = []
    for seed in range(8):
        table = main_effects(typed_table(make_rows(190, seed=seed, failures=False)))
        for knob, factors in SPEED.items():
            for value, factor in factors.items():
                rows = table[(table["knob"] == knob) & (table["value"] == value)]
                for row in rows[rows["objective"] == "seconds_per_epoch"].itertuples():
                    assert row.method == "paired"
                    covered.append(row.ratio_low <= factor <= row.ratio_high)

    assert sum(covered) / len(covered) > 0.8


def test_many_pairs_are_paired_and_few_are_modelled():
    many, few = (main_effects(typed_table(make_rows(n, failures=False))) for n in (190, 30))

    assert set(many["method"]) == {"paired"}
    assert "modelled" in set(few["method"])


def test_too_few_rows_are_not_enough_data():
    table = main_effects(typed_table(make_rows(4, failures=False)))

    assert set(table["method"]) == {NOT_ENOUGH}
    assert table["ratio"].isna().all()
    assert table.attrs["note"].startswith("Not enough data: 4 complete configurations")


def test_an_empty_table_is_not_enough_data():
    table = main_effects(typed_table([]))

    assert table.empty
    assert "Not enough data" in table.attrs["note"]


def test_without_a_baseline_values_are_compared_with_the_most_frequent():
    rows = [{**row, "source": "sampler"} for row in make_rows(60, failures=False)]
    for row in rows[:50]:
        row["config/llm_layers"] = 4

    table = main_effects(typed_table(rows))

    assert set(table.loc[table["knob"] == "llm_layers", "reference"]) == {4}


def test_a_continuous_knob_is_split_at_its_median():
    rows = make_rows(80, failures=False)
    for index, row in enumerate(rows):
        row["config/learning_rate"] = 1e-4 * (1 + index)
        row["val_mse"] *= 1.1 if index >= 40 else 1.0

    found = main_effects(typed_table(rows))
    found = found[(found["knob"] == "learning_rate") & (found["objective"] == "val_mse")].iloc[0]

    assert found["value"].startswith("above")
    assert found["ratio"] == pytest.approx(1.1, rel=0.01)
