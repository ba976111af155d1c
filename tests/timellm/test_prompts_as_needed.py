"""Prompts that are tokenised just before they are needed: the same numbers, and clocks that leave it out."""

import pickle
import shutil
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from tests.timellm.tiny_runs import CPU, options, set_up, tiny_config, write_series
from tests.timellm.two_processes import train, train_together
from timellm.backbones import load_tokenizer, resolve_backbone
from timellm.contract.errors import InputError
from timellm.data import load_data
from timellm.measure import timing
from timellm.prompts import PromptsAsNeeded, as_needed, filling, prompts_as_needed, tokenized_windows
from timellm.prompts.growing import GrowingStore
from timellm.run import training
from timellm.run.evaluate import evaluate
from timellm.run.training import TrainingRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A series with a stretch that stands still, so that its prompts share the tokens before any number and no more."""
    folder = tmp_path_factory.mktemp("tiny")
    table = pd.read_csv(write_series(folder / "series.csv"))
    table.loc[20:120, "c0"] = 0.5
    table.to_csv(folder / "series.csv", index=False)
    return folder


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prompts"


@pytest.fixture
def as_on_wide_data(monkeypatch):
    """Every split has its prompts tokenised as they are needed, some at a time."""
    monkeypatch.setattr(as_needed, "MOST_TOKENISED_FIRST", 0)
    monkeypatch.setattr(as_needed, "WINDOWS_AHEAD", 20)
    monkeypatch.setattr(as_needed, "SAMPLED", 5)


def opened(config, name="train", **more):
    data, source = load_data(config), resolve_backbone(config.llm_model, config.llm_path, config.llm_weights)
    named = {"split_name": name, "data_checksum": data.checksum, "description": data.description}
    return prompts_as_needed(config, data.split(name), load_tokenizer(source), **named, **more)


@pytest.mark.parametrize(
    ("changes", "num_workers"),
    [
        ({}, 2),
        ({"prompt_prefix": "reuse"}, 0),
        ({"prompt_prefix": "reuse", "prompt_scope": "span"}, 2),
        ({"prompt_prefix": "store"}, 0),
        ({"prompt_prefix": "store"}, 2),
    ],
)
def test_a_run_has_the_same_losses_bit_for_bit(folder, fresh_cache, as_on_wide_data, monkeypatch, changes, num_workers):
    config = tiny_config(folder, num_workers=num_workers, **changes)
    windows = [24, 40]  # of one order: prompts are made in both parts, and twice nowhere
    with monkeypatch.context() as before:
        before.setattr(as_needed, "MOST_TOKENISED_FIRST", 10**6)
        longest = set_up(config)[0].longest_prompt
        first = train(config, windows)
    monkeypatch.setattr(PromptsAsNeeded, "estimate_longest", lambda self, _: setattr(self, "longest", longest))
    assert train(config, windows) == first
    assert len(first["losses"]) == 8
    assert len(list(fresh_cache.glob("growing-*/ids.bin"))) == 3


def test_two_processes_have_the_same_losses_bit_for_bit(folder, fresh_cache, tmp_path, monkeypatch):
    config = tiny_config(folder, prompt_prefix="reuse")
    first = train_together(config, [32], tmp_path)
    monkeypatch.setenv("TOKENISE_AS_NEEDED", "yes")
    assert train_together(config, [32], tmp_path) == first
    assert len(first[0]["losses"]) == 2
    assert list(fresh_cache.glob("growing-*"))


def test_a_whole_run_makes_each_prompt_once_and_the_next_run_none(folder, fresh_cache, as_on_wide_data, tmp_path):
    config = tiny_config(folder, num_workers=2, batch_size=64, prompt_prefix="reuse", llm_layers=1)
    results, made, prepare = [], [], training.prepare

    def watched(*given, **more):
        prepared = prepare(*given, **more)
        made.append(prepared.tokenised)
        return prepared

    for _ in range(2):
        with mock.patch.object(training, "prepare", watched):
            results.append(TrainingRun(config, options(tmp_path)).run())
    data = load_data(config)
    counts = [len(split) for split in data.splits.values()]
    assert [[part.made for part in parts] for parts in made] == [counts, [0, 0, 0]]
    assert results[0].state == results[1].state == "complete"
    assert (results[0].val_mse, results[0].test_mse) == (results[1].val_mse, results[1].test_mse)


def test_the_first_step_waits_for_no_more_than_its_block(folder, fresh_cache, as_on_wide_data):
    prepared, stepper, losses = set_up(tiny_config(folder))
    stepper.train(prepared.windows.passes[0][:8])
    train, validation, test = prepared.tokenised
    assert len(losses) == 1
    assert train.made <= 5 + 20
    assert validation.made <= 5
    assert test.made <= 5


def test_clocks_leave_tokenising_out(folder, fresh_cache, as_on_wide_data, monkeypatch):
    prepared, stepper, _ = set_up(tiny_config(folder))
    clock, now = stepper.filling, [0.0]
    add, step = PromptsAsNeeded.add, stepper.take_step

    def slowly(self, rows):
        now[0] += 1000
        add(self, rows)

    def in_a_second(*given):
        now[0] += 1
        return step(*given)

    monkeypatch.setattr(PromptsAsNeeded, "add", slowly)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    stepper.take_step = in_a_second
    stepper.train(prepared.windows.passes[0][:80])
    assert clock.seconds == [1.0] * (10 - len(clock.warmup_seconds))
    assert clock.warmup_seconds == [1.0] * len(clock.warmup_seconds)
    assert clock.idle_seconds == 0
    scores = evaluate(prepared.model, prepared.validation, prepared.windows.validation, 8, CPU, shares_prototypes=False)
    assert scores.seconds == 0
    assert now[0] > 3000


def test_the_run_says_what_tokenising_took(folder, fresh_cache, as_on_wide_data, tmp_path, monkeypatch):
    config = tiny_config(folder, batch_size=64, prompt_prefix="reuse", llm_layers=1)
    assert not [note for note in TrainingRun(config, options(tmp_path)).run().notes if "tokenised" in note]
    monkeypatch.setattr(training, "WORTH_SAYING_SECONDS", 0.0)
    (note,) = [note for note in TrainingRun(config, options(tmp_path)).run().notes if "tokenised" in note]
    assert note.startswith("Between the steps 0 prompts were tokenised in 0 s, which total_seconds holds")


def test_what_a_batch_reads_are_the_tokens_of_its_windows(folder, fresh_cache, tmp_path):
    config = tiny_config(folder)
    prompts, windows = opened(config), torch.tensor([600, 3, 50])
    (same,) = prompts.ahead([windows])
    assert same is windows
    data, source = load_data(config), resolve_backbone(config.llm_model, config.llm_path)
    known = tokenized_windows(
        config, data.train, load_tokenizer(source), description=data.description, indices=windows.sort().values
    )
    for one, other in zip(prompts.gather(windows, width=200), known.gather(windows, width=200), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(prompts.prefix, known.prefix[: len(prompts.prefix)])


def test_a_process_that_reads_finds_what_another_makes_later(folder, fresh_cache):
    prompts = opened(tiny_config(folder))
    reader, windows = pickle.loads(pickle.dumps(prompts)), torch.tensor([601, 602])
    with pytest.raises(RuntimeError, match="are gone"):
        reader.gather(windows)
    with pytest.raises(RuntimeError, match="made in the process that hands out batches"):
        list(reader.ahead([windows]))
    list(prompts.ahead([windows]))
    assert torch.equal(reader.gather(windows)[0], prompts.gather(windows)[0])


def test_a_prompt_that_is_longer_than_expected_makes_its_batch_wider(folder, fresh_cache):
    prompts, windows = opened(tiny_config(folder)), torch.tensor([5, 6])
    list(prompts.ahead([windows]))
    longest = int(prompts.gather(windows)[1].max())
    assert prompts.gather(windows, width=longest + 9)[0].shape == (2, longest + 9)
    assert prompts.gather(windows, width=longest - 9)[0].shape == (2, longest)


@pytest.mark.parametrize("changes", [{"prompt_prefix": "store"}, {"prompt_prefix": "reuse", "step_graph": True}])
def test_runs_of_one_shape_take_a_longer_prompt_too(folder, fresh_cache, as_on_wide_data, monkeypatch, changes):
    config = tiny_config(folder, **changes)
    expected = train(config, [40])["losses"]
    estimate = PromptsAsNeeded.estimate_longest

    def too_short(self, windows):
        estimate(self, windows)
        self.longest -= as_needed.SPARE_TOKENS + 3

    monkeypatch.setattr(PromptsAsNeeded, "estimate_longest", too_short)
    np.testing.assert_allclose(train(config, [40])["losses"], expected, rtol=1e-5)


def test_a_prompt_that_the_model_cannot_read_is_refused_when_it_comes(folder, fresh_cache):
    refused = []

    def check(length):
        refused.append(length)
        if len(refused) > 2:
            raise InputError("too long")

    prompts = opened(tiny_config(folder), check_length=check)
    with pytest.raises(InputError, match="too long"):
        list(prompts.ahead([torch.arange(300)]))


def test_a_prompt_that_begins_otherwise_is_refused(folder, fresh_cache, monkeypatch):
    monkeypatch.setattr(as_needed, "fixed_prefix", lambda *_: (1, 2, 3))
    with pytest.raises(RuntimeError, match="does not start with the tokens"):
        opened(tiny_config(folder))


def test_padding_that_is_attended_to_keeps_its_width(folder, fresh_cache, as_on_wide_data):
    """With one width for all batches it counts, so all prompts are known first; without, each batch has its own."""
    published = tiny_config(folder, prompt_padding="published")
    assert len(set_up(published)[0].tokenised) == 3
    assert not set_up(published.replace(compile_mode="default"))[0].tokenised


def test_one_split_of_very_many_windows_decides_for_all_that_are_read_as_a_whole(folder, fresh_cache, monkeypatch):
    config = tiny_config(folder)
    data = load_data(config)
    monkeypatch.setattr(as_needed, "MOST_TOKENISED_FIRST", len(data.train) - 1)
    assert as_needed.made_as_needed(config, data, data.splits) == {"train", "validation", "test"}
    assert as_needed.made_as_needed(config, data, ["validation"]) == set()
    assert not set_up(config.replace(train_samples=30))[0].tokenised
    assert len(set_up(config)[0].tokenised) == 3


def test_few_windows_are_tokenised_first(folder, fresh_cache):
    assert not set_up(tiny_config(folder))[0].tokenised


def test_prompts_that_do_not_fit_on_the_disk_are_refused_at_the_start(folder, fresh_cache, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=2**20)
    monkeypatch.setattr(filling.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"windows need about .* has 0\.0 GiB free"):
        opened(tiny_config(folder))


def test_a_cache_that_cannot_be_written_names_the_variable(folder, fresh_cache, monkeypatch):
    prompts = opened(tiny_config(folder))
    monkeypatch.setattr(GrowingStore, "add", mock.Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"must be writable, got: No space left on device.* TIMELLM_CACHE_DIR"):
        list(prompts.ahead([torch.arange(600, 620)]))
    shutil.rmtree(fresh_cache)
    fresh_cache.write_text("")
    with pytest.raises(InputError, match="must be writable"):
        opened(tiny_config(folder))
