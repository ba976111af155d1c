"""Profiles of training steps."""

import gzip
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd.profiler_util import FunctionEvent

from tests.timellm.tiny_runs import CPU, options, set_up, tiny_config
from timellm.measure.profiling import OTHER, PROFILE, TRACE, StepProfile, StepProfiler, time_by_part
from timellm.model.parts import PARTS, PREFIX, part
from timellm.run.training import TrainingRun


def profiled(folder: Path, steps: int = 8, **changes: Any) -> tuple[StepProfile, Any, list[float]]:
    """Train some steps, of which the third and fourth are recorded behind one of the profiler's own."""
    config = tiny_config(folder, warmup_steps=1, **changes)
    prepared, stepper, losses = set_up(config)
    stepper.profiler = StepProfiler(folder / "profile", CPU, skip=1, steps=2)
    stepper.train(prepared.windows.passes[0][: steps * config.global_batch])
    result = stepper.profiler.result
    assert result is not None
    return result, stepper, losses


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse", "store"])
def test_shares_cover_the_whole_step(prompt_prefix: Any, gradient_checkpointing: bool, tmp_path: Path) -> None:
    result, _, _ = profiled(tmp_path, prompt_prefix=prompt_prefix, gradient_checkpointing=gradient_checkpointing)
    assert list(result.host_share) == [*PARTS, OTHER]
    assert sum(result.host_share.values()) == pytest.approx(100)
    assert all(share > 0 for share in result.host_share.values())
    assert result.device_share is None


@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse", "store"])
def test_every_matrix_product_belongs_to_a_part(prompt_prefix: Any, tmp_path: Path, monkeypatch: Any) -> None:
    products = property(lambda event: float(event.name in ("aten::mm", "aten::addmm", "aten::bmm")))
    monkeypatch.setattr(FunctionEvent, "self_cpu_time_total", products)
    share = profiled(tmp_path, prompt_prefix=prompt_prefix)[0].host_share
    assert {name for name in share if share[name] > 0} >= {"reprogramming", "backbone", "head"}
    assert share[OTHER] == 0


def test_the_table_holds_operations_and_no_ranges(tmp_path: Path) -> None:
    names = [name for name, _, _ in profiled(tmp_path)[0].top_operations]
    assert "aten::addmm" in names
    assert not any(name.startswith((PREFIX, "autograd::engine", "ProfilerStep")) for name in names)


def test_recording_changes_no_number_and_its_steps_are_not_timed(tmp_path: Path) -> None:
    _, stepper, losses = profiled(tmp_path)
    prepared, plain, expected = set_up(tiny_config(tmp_path, warmup_steps=1))
    plain.train(prepared.windows.passes[0][: 8 * 8])
    assert losses == expected
    assert (plain.timed_steps, stepper.timed_steps) == (7, 7 - 3)


def test_trace_and_shares_are_files_of_the_folder(tmp_path: Path) -> None:
    result, _, _ = profiled(tmp_path)
    trace = json.loads(gzip.decompress((tmp_path / "profile" / TRACE).read_bytes()))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {PREFIX + name for name in PARTS} <= names
    saved = json.loads((tmp_path / "profile" / PROFILE).read_text())
    assert saved["host_share"] == result.host_share
    assert saved["steps"] == 2


def test_text_holds_the_shares_and_the_operations(tmp_path: Path) -> None:
    lines = profiled(tmp_path)[0].lines()
    assert lines[0].startswith("profile of 2 steps")
    assert lines[1].startswith("host time: data ")
    assert any(line.startswith("aten::") for line in lines[3:])


def test_a_run_reports_its_profile(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    config = tiny_config(tmp_path, train_samples=64, val_samples=8)
    result = TrainingRun(config, options(tmp_path, is_profiled=True, on_event=events.append)).run()
    assert result.state == "complete"
    reported = [event for event in events if event["event"] == "profile"]
    assert [event["steps"] for event in reported] == [4]
    assert (tmp_path / TRACE).is_file()


def test_a_run_too_short_for_a_profile_says_so(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    config = tiny_config(tmp_path, train_samples=16, val_samples=8)
    TrainingRun(config, options(tmp_path, is_profiled=True, on_event=events.append)).run()
    reported = [event["lines"] for event in events if event["event"] == "profile"]
    assert reported == [["A profile needs at least 4 training steps, got 2. Use a smaller --batch_size."]]


def test_nothing_is_marked_while_nobody_records() -> None:
    assert isinstance(part("data"), nullcontext)


def event(name: str, start: float, end: float, parent: Any = None, **changes: Any) -> Any:
    values = {
        "name": name, "time_range": SimpleNamespace(start=start, end=end), "cpu_parent": parent, "thread": 1,
        "fwd_thread": 0, "sequence_nr": -1, "self_cpu_time_total": 1.0, "self_device_time_total": 0.0,
        "device_type": torch.autograd.DeviceType.CPU,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def test_kernels_of_a_backward_thread_count_for_their_part() -> None:
    step = event("ProfilerStep#1", 0, 100)
    head = event(PREFIX + "head", 1, 5, step)
    forward = event("aten::addmm", 2, 3, head, sequence_nr=7, self_device_time_total=10.0)
    backward = event("autograd::engine::evaluate_function: AddmmBackward0", 6, 9, thread=2, fwd_thread=1, sequence_nr=7)
    kernel = event("aten::mm", 7, 8, backward, thread=2, self_device_time_total=20.0)
    gpu = event("sgemm", 7, 8, device_type=torch.autograd.DeviceType.CUDA, self_device_time_total=99.0)
    host, device = time_by_part([kernel, backward, forward, head, step, gpu])
    assert host == {OTHER: 1.0, "head": 2.0}
    assert device == {OTHER: 0.0, "head": 30.0}
