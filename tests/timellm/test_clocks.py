"""A run that measures its time alone, and one that measures its error alone."""

import json
import math

import pytest
import torch

from tests.timellm.tiny_runs import options, tiny_config
from timellm.contract.errors import InputError
from timellm.contract.result import RunResult
from timellm.data.naive import naive_errors
from timellm.run.clocks import error_alone
from timellm.run.clocks.error_alone import curve_size, ends_of_steps, spread
from timellm.run.stepping import STEPS_PER_LOOK, Stepper
from timellm.run.training import TrainingRun

OF_TIME = (
    "seconds_per_epoch seconds_per_epoch_low seconds_per_epoch_high seconds_per_epoch_with_validation seconds_per_step "
    "seconds_per_batch samples_per_second startup_seconds compile_seconds validation_seconds total_seconds "
    "peak_memory_gib"
).split()
OF_ERROR = ("val_mse", "val_mae", "val_samples", "curve", "examples")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def run(folder, path, clock, events=None, change=None, **more) -> RunResult:
    config = tiny_config(folder, **{"train_samples": 64, "val_samples": 40, **(change or {})})
    listen = (lambda event: None) if events is None else events.append
    return TrainingRun(config, options(path, clock=clock, on_event=listen, **more)).run()


def missing(result, names) -> set[str]:
    return {name for name in names if getattr(result, name) is None}


def test_a_run_that_measures_its_error_alone_says_nothing_of_time_or_memory(folder, tmp_path):
    events = []
    alone = run(folder, tmp_path, "error", events, max_memory_gib=1e-6)
    assert alone.state == "complete", "a memory limit ends no run of this kind"
    assert missing(alone, OF_TIME) == set(OF_TIME)
    assert not missing(alone, OF_ERROR)
    assert alone.naive_mse
    assert [event["event"] for event in events if event["event"] != "progress"] == ["training", "validation", "done"]
    json.dumps(alone.to_dict(), allow_nan=False)


def test_an_error_measured_alone_is_the_error_of_a_whole_run(folder, tmp_path):
    alone, whole = run(folder, tmp_path, "error"), run(folder, tmp_path, "together")
    assert (alone.val_mse, alone.val_mae, alone.val_samples) == (whole.val_mse, whole.val_mae, whole.val_samples)
    assert (alone.epochs, alone.train_samples, alone.is_projected) == (whole.epochs, 64, True)


def test_a_curve_is_over_the_same_windows_from_its_start_to_its_end(folder, tmp_path):
    change = {"train_samples": 240}
    alone = run(folder, tmp_path, "error", change=change)
    assert [point["samples"] for point in alone.curve] == [64, 120, 184, 240]
    assert [point["step"] for point in alone.curve] == [8, 15, 23, 30]
    assert {point["val_samples"] for point in alone.curve} == {9}
    without = run(folder, tmp_path, "error", change={**change, "val_samples": 4})
    assert without.curve == []
    config = tiny_config(folder, val_samples=40, **change)
    every = TrainingRun(config, options(tmp_path, clock="error", rungs=(120,))).run()
    assert every.val_mse == alone.val_mse, "validations on the way change no number"


def test_examples_hold_what_a_plot_of_a_forecast_needs(folder, tmp_path, monkeypatch):
    weighed = []

    def errors_of(split, windows, frequency):
        weighed.append(len(windows))
        return naive_errors(split, windows, frequency)

    monkeypatch.setattr(error_alone, "naive_errors", errors_of)
    alone = run(folder, tmp_path, "error")
    assert weighed == [alone.val_samples], "the best naive forecast is that of all validated windows"
    assert len(alone.examples) == 4
    assert len({example["window"] for example in alone.examples}) == 4
    for example in alone.examples:
        assert len(example["history"]) == 48
        assert {len(example[name]) for name in ("truth", "forecast", "naive")} == {24}
        assert example["channel"] in ("c0", "c1", "c2")
        assert example["naive_name"] == min(alone.naive_mse, key=alone.naive_mse.get)


def test_an_error_measured_alone_needs_train_samples(folder, tmp_path):
    with pytest.raises(InputError, match="trains on train_samples windows, got all of them"):
        run(folder, tmp_path, "error", change={"train_samples": None})


def test_an_error_measured_alone_that_diverges_says_so(folder, tmp_path):
    assert run(folder, tmp_path, "error", change={"learning_rate": 1e30}).state == "diverged"


@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse", "store"])
def test_a_run_that_measures_its_time_alone_has_every_time_and_no_error(folder, tmp_path, prompt_prefix):
    events = []
    alone = run(folder, tmp_path, "time", events, change={"prompt_prefix": prompt_prefix}, max_timing_seconds=0.5)
    assert alone.state == "complete"
    assert not missing(alone, OF_TIME)
    assert missing(alone, OF_ERROR) == set(OF_ERROR)
    assert alone.seconds_per_epoch_low < alone.seconds_per_epoch < alone.seconds_per_epoch_high
    assert alone.timed_steps >= 2
    assert [event["event"] for event in events] == ["training", "done"]


def test_a_time_is_measured_until_its_interval_is_tight_or_a_bound_is_met(folder, tmp_path, monkeypatch):
    looks = iter([False, False, True])
    monkeypatch.setattr(Stepper, "is_tight", lambda self, half_width: half_width == math.inf or next(looks))
    assert (
        run(folder, tmp_path, "time", min_timed_steps=4, max_timing_seconds=1e9).timed_steps == 4 + 2 * STEPS_PER_LOOK
    )
    monkeypatch.setattr(Stepper, "is_tight", lambda self, half_width: half_width == math.inf)
    assert run(folder, tmp_path, "time", min_timed_steps=4, max_timing_seconds=0.0).timed_steps <= 2


def test_loader_workers_may_be_timed_alone(folder, tmp_path):
    alone = run(folder, tmp_path, "time", change={"num_workers": 1}, max_timing_seconds=0.1)
    assert alone.validation_seconds > 0


def test_validations_on_the_way_see_at_most_a_tenth_of_all_windows():
    assert curve_size(4096, 512) == 128
    assert curve_size(256, 512) == 25
    assert curve_size(32, 64) == 0
    assert curve_size(100_000, 20) == 20
    assert all(
        3 * curve_size(trained, validated) <= 0.1 * (trained + validated)
        for trained in range(8, 4096, 97)
        for validated in (8, 64, 512)
    )


def test_windows_are_spread_evenly_and_steps_end_where_they_may():
    assert spread(torch.arange(100), 4).tolist() == [12, 37, 62, 87]
    assert spread(torch.arange(3), 4).tolist() == [0, 1, 2]
    assert ends_of_steps([0, 10, 16, 17, 30], 8, 32) == {16, 24}
