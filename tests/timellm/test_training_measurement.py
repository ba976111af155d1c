"""Timing steps in processes of their own."""

import os
from pathlib import Path

import pytest

from tests.timellm.tiny_runs import CPU, tiny_config
from timellm.contract.errors import InputError
from timellm.estimate import measurement as module
from timellm.estimate.interleaved import measure_interleaved
from timellm.estimate.measurement import Failure, Measured, Measurement, MeasurePlan
from timellm.machine.memory import MemoryWatch
from timellm.measure.timing import StepClock


def measure(config, plan: MeasurePlan) -> Measured:  # type: ignore[no-untyped-def]
    with MemoryWatch(CPU) as watch:
        measurement = Measurement(config, plan)
        measurement.warm_up()
        for _ in range(plan.rounds):
            measurement.take_round()
        return measurement.finish(startup_seconds=1.0, watch=watch)


def test_rounds_share_the_steps(tmp_path: Path) -> None:
    measured = measure(tiny_config(tmp_path), MeasurePlan(batches=7, warmup_batches=2, rounds=3))
    assert [sum(part.counts) for part in measured.rounds] == [2, 2, 3]
    assert all(seconds > 0 for part in measured.rounds for seconds in part.seconds)


def test_warm_up_and_the_first_step_of_a_round_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take_step = module.Stepper.take_step
    monkeypatch.setattr(module.Stepper, "take_step", lambda *given: (taken.append(len(given[1])), take_step(*given))[1])
    measured = measure(tiny_config(tmp_path), MeasurePlan(batches=4, warmup_batches=3, rounds=2))
    assert taken == [8] * (3 + 4 + 2)
    assert sum(sum(part.counts) for part in measured.rounds) == 4


def test_batches_become_whole_optimizer_steps(tmp_path: Path) -> None:
    measured = measure(tiny_config(tmp_path, accumulation_steps=4), MeasurePlan(batches=10, warmup_batches=1))
    assert [sum(part.counts) for part in measured.rounds] == [3]


def test_windows_of_the_data_set_are_counted_whatever_is_measured(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, train_samples=16, val_samples=8)
    measured = measure(config, MeasurePlan(batches=2, warmup_batches=0))
    whole = tiny_config(tmp_path)
    data = module.prepare(whole, CPU, 1).data
    windows = (len(data.train), len(data.validation), len(data.test))
    assert (measured.epoch_windows, measured.validation_windows, measured.test_windows) == windows


def test_with_a_prompt_store_steps_that_fill_and_that_use_it_are_timed_apart(tmp_path: Path) -> None:
    plan = MeasurePlan(batches=3, warmup_batches=1)
    measured = measure(tiny_config(tmp_path, prompt_prefix="store", prompt_store_gib=0.1), plan)
    assert [sum(part.counts) for part in (*measured.filling_rounds, *measured.rounds)] == [3, 3]
    assert measure(tiny_config(tmp_path, prompt_prefix="reuse"), plan).filling_rounds == []


def test_the_peak_counts_the_whole_prompt_store_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryWatch, "peak_gib", 1.0)
    plan = MeasurePlan(batches=2, warmup_batches=0)
    few, many = (
        measure(tiny_config(tmp_path, prompt_prefix="store", prompt_store_gib=gib), plan) for gib in (0.001, 0.002)
    )
    assert few.peak_memory_gib == pytest.approx(1.001, abs=2e-4)
    assert many.peak_memory_gib == pytest.approx(1.002, abs=2e-4)


def test_more_batches_than_the_data_set_has_are_measured(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, batch_size=128)
    assert sum(measure(config, MeasurePlan(batches=4, warmup_batches=1)).rounds[0].counts) == 4


def test_settings_take_turns_in_as_many_rounds() -> None:
    from timellm.contract.config import RunConfig

    assert MeasurePlan.of(100, 10, [RunConfig()]).rounds == 1
    assert MeasurePlan.of(100, 10, [RunConfig(), RunConfig()]).rounds == 10
    assert MeasurePlan.of(100, 10, [RunConfig(), RunConfig(accumulation_steps=4)]).rounds == 5
    assert MeasurePlan.of(1, 0, [RunConfig(), RunConfig()]).rounds == 2


def test_each_setting_has_a_process_and_one_that_fails_spares_the_others(tmp_path: Path) -> None:
    settings = [tiny_config(tmp_path), tiny_config(tmp_path, learning_rate=1e30), tiny_config(tmp_path, batch_size=4)]
    lines: list[str] = []
    before = dict(os.environ)
    first, diverged, third = measure_interleaved(
        settings, MeasurePlan(batches=4, warmup_batches=3, rounds=2), 1, lines.append
    )
    assert isinstance(first, Measured)
    assert isinstance(third, Measured)
    assert len(first.rounds) == len(third.rounds) == 2
    assert isinstance(diverged, Failure)
    assert diverged.state == "diverged"
    assert "The loss must stay finite" in diverged.error
    assert lines[-1] == "round 2 of 2 is timed"
    assert dict(os.environ) == before


def test_bad_input_found_in_a_process_is_raised(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, d_ff=1000)
    with pytest.raises(InputError, match="d_ff"):
        measure_interleaved([config], MeasurePlan(batches=2, warmup_batches=0), 1, lambda line: None)


def test_steps_that_a_device_has_run_ahead_of_its_readings_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "StepClock", lambda device, **_: StepClock(device, warmup_steps=0, steps_per_reading=16)
    )
    measured = measure(tiny_config(tmp_path), MeasurePlan(batches=7, warmup_batches=1, rounds=2))
    assert [part.counts for part in measured.rounds] == [[3], [4]]
