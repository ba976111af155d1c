"""Batches and the time that a training waits for them."""

import time

import pytest
import torch

from tests.timellm.tiny_runs import CPU, options, set_up, tiny_config
from timellm.measure.launches import LaunchCounter
from timellm.measure.timing import StepClock
from timellm.run import batches as module
from timellm.run import preparation, stepping
from timellm.run.batches import Groups, micro_batches, starvation_note
from timellm.run.errors import Interrupted
from timellm.run.stepping import Stepper, shares
from timellm.run.training import TrainingRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def taking(monkeypatch):
    """Lets a method take seconds of a clock that otherwise stands still."""
    now = [0.0]
    monkeypatch.setattr("timellm.measure.timing.time.perf_counter", lambda: now[0])

    def take(owner, name, seconds):
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: (now.append(now.pop() + seconds), method(*given))[1])

    return take


def test_a_loader_that_starves_the_device_is_said_with_a_remedy(folder, tmp_path, taking):
    taking(module.WindowSource, "__getitem__", 2.0)
    taking(Stepper, "take_step", 1.0)
    result = TrainingRun(tiny_config(folder, train_samples=32, val_samples=8), options(tmp_path)).run()
    assert result.data_wait_percent == pytest.approx(200 / 3)
    (note,) = [note for note in result.notes if "waited for its batches" in note]
    assert f"in {result.data_wait_percent:.0f} % of the step time" in note
    assert "--num_workers 2" in note


def test_waiting_for_loader_workers_counts(folder, monkeypatch):
    cut = module.WindowSource.__getitem__
    monkeypatch.setattr(module.WindowSource, "__getitem__", lambda *given: (time.sleep(0.4), cut(*given))[1])
    config = tiny_config(folder, train_samples=32, num_workers=1)
    prepared, stepper, _ = set_up(config)
    stepper.take_step = lambda *_: torch.zeros(())
    stepper.train(prepared.windows.passes[0])
    assert 50 < stepper.data_wait_percent() <= 100
    note = starvation_note(config, stepper.data_wait_percent())
    for remedy in ("more --num_workers (now 1", "larger --prefetch_factor (now 2)", "--num_workers 0"):
        assert remedy in note


def test_windows_held_on_the_device_do_not_starve_it(folder, tmp_path, taking):
    taking(Stepper, "take_step", 1.0)
    result = TrainingRun(tiny_config(folder, train_samples=48, val_samples=8), options(tmp_path)).run()
    assert result.data_wait_percent == 0
    assert not [note for note in result.notes if "waited" in note]


def test_the_note_comes_above_a_fifth_of_the_step_time(folder):
    config = tiny_config(folder)
    assert starvation_note(config, 20.0) is None
    assert starvation_note(config, 21.0).startswith("The device waited for its batches in 21 % of the step time.")


@pytest.mark.parametrize(("windows", "size"), [(0, 3), (1, 3), (6, 3), (7, 3), (7, 1), (7, 10**9)])
def test_windows_are_cut_into_groups_as_torch_splits_them(windows, size):
    order = torch.arange(windows)
    groups = micro_batches(order, size)
    split = [group.tolist() for group in order.split(size)]
    assert [group.tolist() for group in groups] == [group.tolist() for group in groups[:]] == split
    assert groups[-1].tolist() == split[-1]
    with pytest.raises(IndexError):
        groups[len(groups)]


def test_a_pass_cuts_its_batches_when_they_are_needed(folder):
    prepared, _, _ = set_up(tiny_config(folder))
    cut = []
    stream = prepared.train(Groups(10**9, lambda number: (cut.append(number), torch.arange(2))[1]))
    next(stream)
    next(stream)
    assert max(cut) == 1


@pytest.mark.parametrize("steps", [2, 1])
def test_a_step_waits_for_no_other_group_of_its_pass(folder, monkeypatch, steps):
    config = tiny_config(folder, batch_size=2, accumulation_steps=steps)
    prepared, other, _ = set_up(config)
    windows, cut = prepared.windows.passes[0], []

    def recorded(group, *given):
        cut.append(group.tolist())
        return shares(group, *given)

    def stop(*_):
        raise Interrupted

    monkeypatch.setattr(stepping, "shares", recorded)
    with pytest.raises(Interrupted):
        Stepper(config, prepared, other.engine, CPU, stop).train(windows)
    first, last = windows[: 2 * steps].tolist(), micro_batches(windows, 2 * steps)[-1].tolist()
    assert all(group in (first, last) for group in cut)


def test_waits_count_where_steps_do(monkeypatch):
    clock, now = StepClock(CPU, warmup_steps=1), [0.0]
    monkeypatch.setattr("timellm.measure.timing.time.perf_counter", lambda: now[0])

    def step(wait: float, work: float) -> None:
        clock.idle.mark()
        now[0] += wait
        clock.idle.mark()
        now[0] += work
        clock.step_done()

    clock.resume()
    step(5, 1)  # warm-up
    step(1, 3)
    clock.pause()
    clock.idle.mark()
    now[0] += 100
    clock.idle.mark()
    clock.resume()
    step(2, 2)
    assert (clock.idle_seconds, clock.seconds) == (3, [4, 4])


@pytest.mark.gpu
def test_a_gpu_that_is_busy_is_not_said_to_wait():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    factor = torch.randn(4096, 4096, device=device)
    clock = StepClock(device, warmup_steps=1, steps_per_reading=8)
    clock.resume()
    for _ in range(9):
        clock.idle.mark()
        time.sleep(0.002)
        clock.idle.mark()
        for _ in range(20):
            factor @ factor
        clock.step_done()
    assert clock.idle_seconds < 0.2 * sum(clock.seconds)


@pytest.mark.parametrize(("num_workers", "prefetch_factor", "pin_memory"), [(1, 3, True), (2, 5, False)])
def test_workers_prefetch_and_pinning_reach_the_loader(folder, monkeypatch, num_workers, prefetch_factor, pin_memory):
    seen = {}
    monkeypatch.setattr(module, "DataLoader", lambda *_, **given: seen.update(given) or [])
    config = tiny_config(
        folder, num_workers=num_workers, prefetch_factor=prefetch_factor, pin_memory=pin_memory, train_samples=8
    )
    prepared, _, _ = set_up(config)
    source = prepared.train.source
    gpu = torch.device("cuda")
    assert list(module.WindowBatches(config, source.split, source.prompts, source.prefix, gpu)([])) == []
    assert (seen["num_workers"], seen["prefetch_factor"]) == (num_workers, prefetch_factor)
    assert seen["pin_memory"] is pin_memory


def test_memory_is_not_pinned_for_a_cpu(folder, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "DataLoader", lambda *_, **given: seen.update(given) or [])
    prepared, _, _ = set_up(tiny_config(folder, num_workers=1, train_samples=8))
    assert list(prepared.train([])) == []
    assert seen["pin_memory"] is False


def test_without_workers_no_loader_is_made(folder, monkeypatch):
    monkeypatch.setattr(module, "DataLoader", None)
    prepared, _, _ = set_up(tiny_config(folder, train_samples=8))
    (batch,) = prepared.train([prepared.windows.passes[0][:3]])
    assert batch.x.shape == (3, 48)


META = torch.device("meta")
"""Stands for a GPU: what is copied there from main memory is seen, and nothing is computed."""


def on_device(config, prepared, width=176):
    """The training batches of a prepared run, on a device that is not the CPU."""
    given = prepared.train
    source = given.source
    return module.WindowBatches(config, source.split, source.prompts, source.prefix, META, width)


@pytest.mark.parametrize("prompt_scope", ["channel", "span"])
def test_batches_are_cut_on_a_device_without_waiting_for_it(folder, prompt_scope):
    config = tiny_config(folder, prompt_prefix="reuse", prompt_scope=prompt_scope, train_samples=24)
    prepared, _, _ = set_up(config)
    batches = on_device(config, prepared)
    with LaunchCounter("meta") as counter:
        shapes = [batch.prompt.ids.shape for batch in batches(list(prepared.windows.passes[0].split(8)))]
    assert shapes == 3 * [(8, 176 - prepared.train.source.prefix)]
    assert not counter.waits
    assert counter.launches["_to_copy"] <= 2  # the numbers of a whole pass at once


def test_a_table_of_tokens_cuts_what_the_source_cuts(folder):
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=20)
    prepared, _, _ = set_up(config)
    given, groups = prepared.train, list(prepared.windows.passes[0].split(8))
    source = given.source
    plain = module.WindowBatches(config, source.split, source.prompts, source.prefix, CPU, 176)
    table = module.WindowBatches(config, source.split, source.prompts, source.prefix, CPU, 176)
    table.table = module.DeviceTable(source.split, source.prompts, source.prefix, 176)
    for ours, theirs in zip(table(groups), plain(groups), strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)
        assert torch.equal(ours.indices, theirs.indices)
        assert torch.equal(ours.prompt.ids, theirs.prompt.ids)
        assert torch.equal(ours.prompt.lengths, theirs.prompt.lengths)


def test_a_table_that_would_be_too_big_is_not_made(folder, monkeypatch):
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=8)
    prepared, _, _ = set_up(config)
    assert on_device(config, prepared).table is not None
    monkeypatch.setattr(module, "LARGEST_TABLE_BYTES", 1000)
    assert on_device(config, prepared).table is None


def test_a_store_that_holds_every_prompt_is_read_without_waiting(folder):
    config = tiny_config(folder, prompt_prefix="store", train_samples=16)
    prepared, stepper, _ = set_up(config)
    stepper.train(prepared.windows.passes[0])
    store = prepared.store
    (batch,) = prepared.train([prepared.windows.passes[0][:8]])
    plain = store.prompt(batch).memory
    store.device = META
    store.memory = store.memory.to(META)
    with LaunchCounter("meta") as counter:
        memory = store.prompt(batch).memory
    assert memory.keys[0].shape == plain.keys[0].shape
    assert counter.launches["_to_copy"] == 1
    assert not counter.waits


@pytest.mark.parametrize(
    ("device", "padding", "expected"),
    [("cpu", "masked", False), ("meta", "masked", True), ("meta", "published", False)],
)
def test_prompts_have_one_width_on_a_gpu_unless_padding_is_attended_to(folder, device, padding, expected):
    config = tiny_config(folder, prompt_prefix="reuse", prompt_padding=padding, train_samples=8)
    assert preparation.has_one_width(config, torch.device(device)) is expected


def test_the_one_width_is_a_multiple_of_sixteen_and_changes_no_number(folder, monkeypatch):
    config = tiny_config(folder, prompt_prefix="reuse", train_samples=16)
    _, stepper, losses = set_up(config)
    windows = stepper.prepared.windows.passes[0]
    torch.manual_seed(0)
    stepper.train(windows)
    monkeypatch.setattr(preparation, "has_one_width", lambda *_: True)
    prepared, stepper, padded = set_up(config)
    torch.manual_seed(0)
    stepper.train(windows)
    (batch,) = prepared.train([windows[:1]])
    assert (batch.prompt.ids.shape[1] + prepared.train.source.prefix) % 16 == 0
    assert padded == pytest.approx(losses, rel=1e-5)
