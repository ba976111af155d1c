import dataclasses

import pytest

from search.decide.spend.fidelity import Fidelity, parse_fidelity
from search.decide.spend.plan import ProbeCosts, choose_plan, fixed_plan, probe_config
from spaces import InputError
from timellm.contract.config import RunConfig

WINDOWS = {"train": 100_000, "validation": 10_000, "test": 20_000}
BASELINE = RunConfig()
COSTS = ProbeCosts(startup_seconds=6.0, seconds_per_sample=0.1, validation_seconds_per_sample=0.03, timed_steps=4)


def choose(seconds, repeats=0, costs=COSTS):
    return choose_plan(
        costs=costs, config=BASELINE, windows=WINDOWS, seconds=seconds, plans=[BASELINE] * 3, repeats=repeats
    )


def test_samples_are_the_largest_multiple_of_32_that_lets_a_dozen_trials_fit():
    plan = choose(560)
    assert plan.fidelity.train_samples % 32 == 0
    assert 128 <= plan.fidelity.train_samples <= 800
    assert plan.trials >= 12
    larger = Fidelity.of_samples(plan.fidelity.train_samples + 32)
    assert (4 + 8 / 2) * COSTS.seconds(larger, BASELINE, WINDOWS) > 550


def test_confirmations_are_part_of_the_budget():
    assert choose(560, repeats=6).fidelity.train_samples < choose(560).fidelity.train_samples


def test_the_whole_training_is_chosen_where_it_fits():
    fast = ProbeCosts(startup_seconds=1, seconds_per_sample=1e-6, validation_seconds_per_sample=1e-6, timed_steps=1)
    assert choose(600, costs=fast).fidelity.kind == "full"
    assert choose(None).fidelity.kind == "full"


def test_a_budget_that_is_too_short_is_said():
    plan = choose(30)
    assert plan.fidelity.train_samples == 32
    assert plan.trials >= 1
    assert "too short" in plan.notes[0]


def test_a_fixed_fidelity_needs_no_measurement():
    assert str(fixed_plan("full")) == (
        "Every trial is the whole training run. What a trial costs is unknown until the baseline has been measured."
    )
    assert fixed_plan(96).fidelity.to_dict() == {"kind": "samples", "train_samples": 96, "val_samples": 48}


def test_a_fidelity_sets_the_samples_of_a_run():
    config = Fidelity.of_samples(2048).apply(BASELINE)
    assert (config.train_samples, config.val_samples) == (2048, 512)
    assert Fidelity(kind="full").apply(config).train_samples is None
    assert probe_config(BASELINE).train_samples == 4 * 32


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_a_wrong_fidelity_is_refused(text):
    with pytest.raises(InputError, match="--fidelity must be full, auto or a number"):
        parse_fidelity(text)


def test_costs_come_from_a_probe():
    result = {"seconds_per_epoch": 1000.0, "startup_seconds": 5.0, "compile_seconds": 1.0, "validation_seconds": 50.0}
    costs = ProbeCosts.from_result(result, WINDOWS, 4, {"bf16": 2.0})
    assert costs.seconds_per_sample == pytest.approx(0.01)
    assert costs.validation_seconds_per_sample == pytest.approx(0.005)
    assert costs.startup_seconds == 6.0
    assert (costs.timed_steps, costs.slowdown) == (4, {"bf16": 2.0})


def test_a_precision_that_is_slow_here_makes_its_trials_longer_and_all_of_them_smaller():
    slow = dataclasses.replace(COSTS, slowdown={"bf16": 2.0})
    fidelity, rough = Fidelity.of_samples(256), BASELINE.replace(precision="bf16")
    assert slow.seconds(fidelity, rough, WINDOWS) > 1.7 * slow.seconds(fidelity, BASELINE, WINDOWS)

    def chosen(costs):
        return choose_plan(
            costs=costs, config=BASELINE, windows=WINDOWS, seconds=560, plans=[rough] * 3, repeats=0,
            precisions=("fp32", "bf16"),
        ).fidelity.train_samples  # fmt: skip

    assert chosen(slow) < chosen(COSTS)


def test_exact_reuse_is_not_slowed_down_by_a_slow_precision():
    slow = dataclasses.replace(COSTS, slowdown={"bf16": 2.0})
    assert slow.slowdown_of("bf16", "recompute") == 2.0
    assert slow.slowdown_of("bf16", "reuse") == slow.slowdown_of("fp32", "recompute") == 1.0
    fast = dataclasses.replace(COSTS, slowdown={"bf16": 0.3})
    assert fast.slowdown_of("bf16", "store") == 0.3


def test_steps_that_are_only_timed_are_counted_and_bounded():
    fidelity = Fidelity.of_samples(64)
    short = COSTS.seconds(fidelity, BASELINE, WINDOWS)
    assert short == pytest.approx(6 + 6.4 + 4 * 3.2 + 32 * 0.03 + 1)
    big = COSTS.seconds(fidelity, BASELINE.replace(batch_size=128), WINDOWS)
    assert big == pytest.approx(6 + 6.4 + 12.8 + 20 + 32 * 0.03 + 1)


def test_a_global_batch_above_the_samples_is_refused():
    fidelity = Fidelity.of_samples(128)
    assert fidelity.refusal(RunConfig(batch_size=64, accumulation_steps=2)) is None
    assert "global batch of 256 makes no whole step of 128" in fidelity.refusal(RunConfig(batch_size=256))
    assert Fidelity(kind="full").refusal(RunConfig(batch_size=256)) is None
