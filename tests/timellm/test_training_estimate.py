"""From measured batches to what a run takes."""

from typing import Any

import pytest

from timellm.contract.config import RunConfig
from timellm.estimate.measurement import Failure, Measured, Round
from timellm.estimate.projection import estimate_run, estimates, speedup
from timellm.estimate.wording import print_comparison, print_estimate


def measured(*rounds: list[float], **changes: Any) -> Measured:
    """Rounds of steps with these seconds; 1,000 training, 200 validation and 300 test windows."""
    values: dict[str, Any] = {
        "rounds": [Round(seconds=list(seconds), counts=[1] * len(seconds)) for seconds in rounds],
        "filling_rounds": [], "evaluation_start_seconds": 0.5, "evaluation_seconds": [0.1, 0.1, 0.1],
        "epoch_windows": 1000, "validation_windows": 200, "test_windows": 300, "startup_seconds": 3.0,
        "compile_seconds": 0.0,
        "peak_memory_gib": 1.5, "trainable_parameters": 7, "total_parameters": 9, "device": "cpu",
        "backbone": "tiny", "notes": [],
    }  # fmt: skip
    return Measured(**{**values, **changes})


def test_an_epoch_is_its_steps_times_the_seconds_of_one() -> None:
    result = estimate_run(RunConfig(batch_size=10, accumulation_steps=4), measured([2.0, 2.0, 2.0, 2.0]))
    assert (result.steps_per_epoch, result.batches_per_epoch) == (25, 100)
    assert result.seconds_per_batch == pytest.approx(0.5)
    assert result.seconds_per_epoch == pytest.approx(50.0)
    assert result.samples_per_second == pytest.approx(20.0)
    assert result.seconds_per_1000_iterations == pytest.approx(500.0)
    assert result.seconds_per_10000_iterations == pytest.approx(5000.0)


def test_validation_and_test_are_added_to_an_epoch() -> None:
    config = RunConfig(batch_size=10, eval_batch_size=100, validate_every=2)
    result = estimate_run(config, measured([1.0, 1.0]))
    assert result.validation_seconds == pytest.approx(0.5 + 2 * 0.1)
    assert result.test_seconds == pytest.approx(0.5 + 3 * 0.1)
    assert result.seconds_per_epoch_with_validation == pytest.approx(100 + 0.7 / 2)
    assert result.seconds_per_epoch_with_validation_and_test == pytest.approx(100 + 0.7 + 0.8)


def test_a_run_is_its_epochs_validations_and_test() -> None:
    config = RunConfig(batch_size=10, eval_batch_size=100, train_epochs=5, validate_every=2)
    result = estimate_run(config, measured([1.0, 1.0]))
    assert (result.steps_per_run, result.validations_per_run) == (500, 3)
    assert result.seconds_per_run == pytest.approx(500 + 3 * 0.7 + 0.8)


def test_a_run_on_some_windows_validates_once_and_makes_no_test() -> None:
    config = RunConfig(batch_size=10, eval_batch_size=100, train_samples=95, val_samples=100)
    result = estimate_run(config, measured([1.0, 1.0]))
    assert (result.steps_per_run, result.validations_per_run) == (10, 1)
    assert result.seconds_per_run == pytest.approx(10 + 0.6)
    assert result.seconds_per_epoch == pytest.approx(100)


def test_intervals_hold_the_mean_and_scale_with_it() -> None:
    result = estimate_run(RunConfig(batch_size=10), measured([1.0, 1.2, 0.9, 1.1], [1.0, 1.3, 0.8, 1.1]))
    assert result.seconds_per_batch_low < result.seconds_per_batch < result.seconds_per_batch_high
    assert result.seconds_per_epoch_low == pytest.approx(100 * result.seconds_per_batch_low)
    assert result.seconds_per_run_low < result.seconds_per_run < result.seconds_per_run_high


def test_one_step_tells_nothing_of_the_upper_end() -> None:
    result = estimate_run(RunConfig(batch_size=10), measured([1.0]))
    assert result.seconds_per_batch == 1.0
    assert result.seconds_per_batch_high is None


def test_readings_of_several_steps_weigh_what_they_cover() -> None:
    parts = [Round(seconds=[4.0, 1.0], counts=[4, 1])]
    assert estimate_run(RunConfig(batch_size=10), measured(rounds=parts)).seconds_per_batch == pytest.approx(1.0)


def test_speedup_pairs_rounds_so_that_common_slowness_cancels_out() -> None:
    config = RunConfig(batch_size=10)
    slow = measured([2.0, 2.0], [8.0, 8.0], [4.0, 4.0])
    fast = measured([1.0, 1.0], [4.0, 4.0], [2.0, 2.0])
    ratio = speedup(config, slow, config, fast)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_a_failed_setting_keeps_its_state_beside_the_others() -> None:
    parts = [measured([2.0], [2.0]), Failure("out_of_memory", "Memory ended."), measured([1.0], [1.0])]
    results = estimates([RunConfig()] * 3, parts)
    assert [result.state for result in results] == ["complete", "out_of_memory", "complete"]
    assert [result.speedup_vs_first for result in results] == [1.0, None, 2.0]
    assert results[1].error == "Memory ended."


def test_without_the_first_setting_nothing_is_compared() -> None:
    results = estimates([RunConfig()] * 2, [Failure("failed", "x"), measured([1.0], [1.0])])
    assert results[1].speedup_vs_first is None
    assert results[1].state == "complete"


def test_the_first_of_the_epochs_fills_the_prompt_store() -> None:
    filling = [Round(seconds=[3.0, 3.0], counts=[1, 1])]
    config = RunConfig(batch_size=10, eval_batch_size=100, prompt_prefix="store", train_epochs=4)
    parts = measured([1.0, 1.0], filling_rounds=filling)
    result = estimate_run(config, parts)
    assert result.seconds_per_batch == pytest.approx(1.0)
    assert result.seconds_per_epoch == pytest.approx(100 * (3 + 3 * 1) / 4)
    assert result.seconds_per_run == pytest.approx(100 * (3 + 3 * 1) + 4 * 0.7 + 0.8)
    once = config.replace(train_samples=50)
    assert estimate_run(once, parts).seconds_per_run == pytest.approx(5 * 3 + 0.7)
    ratio = speedup(config.replace(prompt_prefix="reuse"), measured([3.0, 3.0]), config, parts)
    assert ratio.mean == pytest.approx(2.0)


def test_a_run_of_one_epoch_only_fills_the_prompt_store() -> None:
    parts = measured([1.0, 1.0], filling_rounds=[Round(seconds=[3.0, 3.0], counts=[1, 1])])
    result = estimate_run(RunConfig(batch_size=10, prompt_prefix="store", train_epochs=1), parts)
    assert result.seconds_per_batch == pytest.approx(3.0)
    assert result.seconds_per_epoch == pytest.approx(300.0)


def test_text_of_one_run_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(batch_size=10, accumulation_steps=2, train_epochs=3, validate_every=3)
    print_estimate(config, estimate_run(config, measured([2.0, 2.1, 1.9], notes=["3 values were filled."])))
    lines = capsys.readouterr().out.splitlines()
    heads = (
        "batch of 10 windows",
        "epoch of 100 batches",
        "epoch with its share of validation (every 3)",
        "epoch with whole validation and test",
        "run of 150 steps, 1 validation, test",
        "1,000 iterations",
        "10,000 iterations",
    )
    assert all(line.startswith(head) for head, line in zip(heads, lines[1:], strict=False))
    assert "100.0" in lines[2]
    assert "1 min 40 s" in lines[2]
    assert lines[-3].startswith("global batch 20 = 10 x 2; 3 steps timed; start-up 3.0 s on top")
    assert lines[-2] == "peak 1.50 GiB on cpu, 7 of 9 parameters trained, tiny"
    assert lines[-1] == "3 values were filled."


def test_text_of_several_runs_has_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    parts = [measured([2.0, 2.0], [2.0, 2.0]), Failure("diverged", "x"), measured([1.0], [1.0])]
    results = estimates([RunConfig(batch_size=10)] * 3, parts)
    print_comparison(["first", "--learning_rate 9", "--precision bf16"], results)
    text = capsys.readouterr().out
    assert text.startswith("1  first\n2  --learning_rate 9\n3  --precision bf16\n")
    rows = [line.split() for line in text.splitlines()[4:7]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[1] == ["2", "diverged"]
    assert rows[2][-4:] == ["2.00x", "1.93", "to", "2.07"]
