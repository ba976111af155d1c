import dataclasses
import math
import re

import pytest
import torch
from safetensors import safe_open

from tests.timellm.tiny_runs import options, set_up, tiny_config
from timellm.contract.layout import CHECKPOINT
from timellm.contract.result import RunResult
from timellm.run.errors import Diverged
from timellm.run.evaluate import Scores
from timellm.run.training import TrainingRun

UNKNOWN_OF_A_CPU = ("power_watts", "temperature_celsius")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def run(config, path, **changes):
    events = []
    result = TrainingRun(config, options(path, on_event=events.append, **changes)).run()
    return result, events


@pytest.fixture(scope="module")
def whole_run(folder, tmp_path_factory):
    config = tiny_config(folder, train_epochs=2, prompt_prefix="reuse")
    path = tmp_path_factory.mktemp("run")
    return config, path, *run(config, path)


def test_a_whole_run_measures_everything(whole_run):
    _, _, result, _ = whole_run
    assert result.state == "complete"
    missing = {name for name, value in result.to_dict().items() if value is None}
    unknown = {"error", "curve", "examples", "prompt_memory"}
    assert missing == {*unknown, *(f"{kind}_device_{name}" for kind in ("mean", "max") for name in UNKNOWN_OF_A_CPU)}
    assert not result.is_projected
    assert result.epochs == 2


def test_a_whole_run_validates_every_window(whole_run, folder):
    config, _, result, _ = whole_run
    prepared, _, _ = set_up(config)
    assert result.val_samples == len(prepared.data.validation)
    assert result.train_samples == len(prepared.data.train)


def test_seconds_per_epoch_are_the_steps_times_the_mean_step(whole_run, folder):
    config, _, result, _ = whole_run
    prepared, _, _ = set_up(config)
    steps = math.ceil(len(prepared.data.train) / config.batch_size)
    assert result.seconds_per_epoch == pytest.approx(steps * result.seconds_per_step)
    assert result.seconds_per_epoch_low <= result.seconds_per_epoch <= result.seconds_per_epoch_high
    assert result.samples_per_second == pytest.approx(len(prepared.data.train) / result.seconds_per_epoch)


def test_the_events_come_in_order(whole_run):
    _, _, _, events = whole_run
    kinds = [event["event"] for event in events]
    assert kinds[0] == "training"
    assert kinds.count("validation") == 2
    assert kinds[-1] == "done"


def test_a_checkpoint_holds_trained_parameters_only(whole_run):
    _, path, result, _ = whole_run
    with safe_open(path / CHECKPOINT, framework="pt") as file:
        names = list(file.keys())
        count = sum(file.get_tensor(name).numel() for name in names)
    assert not [name for name in names if name.startswith(("llm_model", "word_embeddings"))]
    assert count == result.trainable_parameters


def test_a_run_on_samples_is_projected_and_makes_no_test_pass(folder, tmp_path):
    config = tiny_config(folder, train_samples=64, val_samples=10)
    result, _ = run(config, tmp_path)
    assert (result.state, result.train_samples, result.val_samples) == ("complete", 64, 10)
    assert result.is_projected
    assert result.test_mse is None
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_run_too_short_for_its_timing_takes_extra_steps(folder, tmp_path):
    config = tiny_config(folder, train_samples=8, val_samples=10)
    result, _ = run(config, tmp_path, min_timed_steps=3)
    assert result.timed_steps == 3
    assert result.train_samples == 8


def test_a_rung_validates_on_the_way_and_changes_no_number(folder, tmp_path):
    config = tiny_config(folder, train_samples=64, val_samples=10)
    straight, _ = run(config, tmp_path)
    rungs, events = run(config, tmp_path, rungs=(12, 32, 200))
    assert [event["samples"] for event in events if event["event"] == "validation"] == [16, 32, 64]
    assert rungs.val_mse == pytest.approx(straight.val_mse, rel=1e-6)
    assert rungs.train_samples == 64


def test_a_projection_of_a_store_mixes_filling_and_using(folder, tmp_path):
    config = tiny_config(folder, prompt_prefix="store", train_samples=32, val_samples=10, train_epochs=4)
    result, _ = run(config, tmp_path)
    assert result.state == "complete"
    assert result.seconds_per_epoch > 0


@pytest.mark.parametrize(("validate_every", "expected"), [(1, 3), (2, 2), (5, 1)])
def test_validation_comes_every_n_epochs_and_after_the_last(folder, tmp_path, validate_every, expected):
    config = tiny_config(folder, train_epochs=3, validate_every=validate_every, percent=15)
    result, events = run(config, tmp_path)
    assert result.state == "complete"
    assert [event["event"] for event in events].count("validation") == expected


def test_patience_counts_validations_that_no_longer_improve(folder, tmp_path, monkeypatch):
    scripted = iter([3.0, 1.0, 2.0, 1.5, 0.5])
    monkeypatch.setattr(
        "timellm.run.clocks.running.evaluate",
        lambda *_, **__: Scores(mse=next(scripted), mae=1.0, windows=10, seconds=1.0),
    )
    config = tiny_config(folder, train_epochs=20, patience=2, validate_every=2, percent=15)
    result, events = run(config, tmp_path)
    scores = [event["val_mse"] for event in events if event["event"] == "validation"]
    assert scores == [3.0, 1.0, 2.0, 1.5]
    assert (result.val_mse, result.epochs) == (1.0, 8)


def test_a_loss_that_is_not_finite_ends_the_run_with_remedies(folder, tmp_path):
    result, _ = run(tiny_config(folder, learning_rate=1e30), tmp_path)
    assert result.state == "diverged"
    assert re.search(r"non-finite one at step \d+ in fp32\.", result.error)
    assert "Try a lower --learning_rate, or --max_grad_norm 1." in result.error


@pytest.mark.parametrize(("precision", "remedy"), [("fp16", "--precision bf16"), ("bf16", "--precision fp32")])
def test_a_diverged_run_names_a_number_format_that_may_help(precision, remedy):
    text = str(Diverged(7, precision))
    assert f"at step 7 in {precision}" in text
    assert all(part in text for part in (remedy, "--learning_rate", "--max_grad_norm"))


CPU_WITHOUT_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9."
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nmore"), MemoryError(), CPU_WITHOUT_MEMORY]
)
def test_out_of_memory_names_the_peak_and_the_remedies(folder, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("timellm.run.training.Stepper.train", fail)
    result, _ = run(tiny_config(folder, train_samples=8), tmp_path)
    assert result.state == "out_of_memory"
    assert result.peak_memory_gib > 0
    assert re.search(r" The peak was \d+\.\d\d GiB\. ", result.error)
    remedies = "precision bf16|batch_size|accumulation_steps|llm_layers|prompt_prefix reuse|gradient_checkpointing"
    for remedy in f"{remedies}|offload_optimizer cpu".split("|"):
        assert f"--{remedy}" in result.error
    assert "\n" not in result.error


def test_a_stop_from_outside_ends_the_run_in_good_order(folder, tmp_path):
    setup = options(tmp_path)
    setup.on_event = lambda event: event["event"] == "progress" and setup.should_stop.set()
    result = TrainingRun(tiny_config(folder), setup).run()
    assert result.state == "interrupted"
    assert result.total_seconds > 0


def test_one_seed_gives_one_result_whatever_loads_the_data(folder, tmp_path):
    config = tiny_config(folder, train_samples=40, val_samples=20)
    results = [run(this, tmp_path)[0].val_mse for this in (config, config, config.replace(num_workers=2))]
    assert results[0] == results[1] == results[2]


def test_every_field_of_a_result_says_what_it_is():
    assert all(field.name.islower() for field in dataclasses.fields(RunResult))
