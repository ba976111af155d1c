import dataclasses
import itertools

import numpy as np
import pytest
import torch

from tests.timellm.tiny_runs import tiny_config
from timellm.backbones import load_tokenizer, resolve_backbone
from timellm.check import check_run
from timellm.data import load_data
from timellm.prompts import as_needed, cost, prompts_as_needed, tokenising_cost, tokenized_prompts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def slow_clock(monkeypatch):
    """A sample of 128 windows takes 128 s."""
    clock = itertools.count(step=cost.SAMPLED)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(clock)))


def parts(config):
    source = resolve_backbone(config.llm_model, config.llm_path, config.llm_weights)
    return config, load_data(config), load_tokenizer(source)


def tokenise(config, data, tokenizer, name):
    split = {"train": data.train, "validation": data.validation, "test": data.test}[name]
    return tokenized_prompts(
        config, split, tokenizer, split_name=name, data_checksum=data.checksum, description=data.description
    )


def test_the_cost_follows_the_sample(folder, slow_clock):
    config, data, tokenizer = parts(tiny_config(folder))
    found = tokenising_cost(config, data, tokenizer)
    every = [len(split) for split in (data.train, data.validation, data.test)]
    assert found.prompts == sum(every)
    assert found.seconds == pytest.approx(sum(every))  # a second each
    assert not (folder / "cache" / "prompts").exists()
    written = [tokenise(config, data, tokenizer, name) for name in ("train", "validation", "test")]
    assert found.kept_bytes == pytest.approx(sum(part.ids.nbytes + part.lengths.nbytes for part in written), rel=0.2)
    assert found.kept_bytes < found.needed_bytes < 2 * found.kept_bytes


def test_what_an_earlier_run_left_costs_nothing(folder, slow_clock):
    config, data, tokenizer = parts(tiny_config(folder))
    tokenise(config, data, tokenizer, "train")
    assert tokenising_cost(config, data, tokenizer).prompts == len(data.validation) + len(data.test)
    for name in ("validation", "test"):
        tokenise(config, data, tokenizer, name)
    found = tokenising_cost(config, data, tokenizer)
    assert (found.prompts, found.seconds, found.note()) == (0, 0, None)
    assert tokenising_cost(config.replace(prompt_digits="4"), data, tokenizer).prompts > 0


def test_of_very_many_windows_what_an_interrupted_run_made_costs_nothing(folder, slow_clock, monkeypatch):
    monkeypatch.setattr(as_needed, "MOST_TOKENISED_FIRST", 200)
    config, data, tokenizer = parts(tiny_config(folder))
    every = [len(split) for split in (data.train, data.validation, data.test)]
    before = tokenising_cost(config, data, tokenizer)
    prompts = prompts_as_needed(
        config, data.train, tokenizer, split_name="train", data_checksum=data.checksum, description=data.description
    )
    list(prompts.ahead([torch.arange(len(data.train))]))
    after = tokenising_cost(config, data, tokenizer)
    assert (before.prompts, after.prompts) == (sum(every), sum(every[1:]))
    assert before.is_as_needed
    assert after.kept_bytes < before.kept_bytes == before.needed_bytes


def test_only_the_prompts_that_the_run_reads_count(folder, slow_clock):
    config, data, tokenizer = parts(tiny_config(folder))
    few = tokenising_cost(config.replace(train_samples=100, val_samples=20), data, tokenizer)
    assert (few.prompts, few.seconds) == (120, pytest.approx(120))
    spans = tokenising_cost(config.replace(prompt_scope="span"), data, tokenizer)
    assert spans.prompts == sum(split.windows_per_channel for split in (data.train, data.validation, data.test))


def test_the_note_says_time_and_disk_and_what_to_do(folder, slow_clock):
    found = tokenising_cost(*parts(tiny_config(folder)))
    wide = dataclasses.replace(
        found,
        prompts=14_400_000,
        seconds=9000.0,
        kept_bytes=4.4 * 2**30,
        needed_bytes=7.9 * 2**30,
        free_bytes=9 * 2**30,
    )
    assert wide.note() == (
        "A run on all windows tokenises 14,400,000 prompts before its first step, once for all runs with the same data "
        "and prompt: about 2 h 30 min here, which seconds_per_epoch does not count, and 4.4 GiB in "
        f"{folder}/cache/prompts (7.9 GiB while they are written)."
    )
    grown = dataclasses.replace(wide, is_as_needed=True).note()
    assert grown.startswith(
        "A run on all windows tokenises 14,400,000 prompts between its steps, as they need them, once"
    )
    assert ", and less than 0.1 GiB in " in found.note()
    full = dataclasses.replace(wide, free_bytes=2**30).note()
    assert full.endswith(" Only 1.0 GiB are free there: name another folder with TIMELLM_CACHE_DIR.")


def test_the_check_says_it_where_it_takes_more_than_a_minute(folder, monkeypatch):
    config = tiny_config(folder)
    assert "prompts" not in check_run(config)
    monkeypatch.setattr(cost, "WORTH_SAYING_SECONDS", 1e-6)
    (note,) = check_run(config)["prompts"]["notes"]
    assert "A run on all windows tokenises" in note
    assert "prompts" not in check_run(config.replace(prompt="none"))


def test_the_sample_s_ids_are_those_that_are_kept(folder):
    config, data, tokenizer = parts(tiny_config(folder))
    _, ids = cost.sampled(config, data, tokenizer)
    assert ids == pytest.approx(np.mean(tokenise(config, data, tokenizer, "train").lengths), rel=0.05)
