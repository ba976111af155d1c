import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.timellm.golden_cases import golden_dir
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import Split
from timellm.prompts import PromptTokens, prompt_texts, tokenized_prompts, tokens
from timellm.prompts.statistics import normalise_windows
from timellm.prompts.tokens import tokenizer_fingerprint

_DESCRIPTION = "Waves."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(golden_dir() / "tokenizer")


@pytest.fixture(scope="module")
def split() -> Split:
    return Split(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), 24, 8)


def _config(**changes: Any) -> RunConfig:
    return RunConfig(**{"seq_len": 24, "pred_len": 8, "dwt_prompt_level": 1, **changes})


def _prompts(
    config: RunConfig, split: Split, tokenizer: PreTrainedTokenizerBase, cache_dir: Path, **changes: Any
) -> PromptTokens:
    settings = {"split_name": "train", "data_checksum": "0", "description": _DESCRIPTION}
    return tokenized_prompts(config, split, tokenizer, cache_dir=cache_dir, **{**settings, **changes})


def _text_of(prompts: PromptTokens, tokenizer: PreTrainedTokenizerBase, index: int) -> str:
    ids, lengths = prompts.gather(torch.tensor([index]))
    return tokenizer.decode(ids[0, : lengths[0]].tolist())


@pytest.mark.parametrize("prompt", ["official", "dwt-minimal", "dwt-balanced", "dwt-detailed"])
def test_every_window_has_the_ids_of_its_text(
    prompt: str, split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    config = _config(prompt=prompt)
    prompts = _prompts(config, split, tokenizer, tmp_path)
    texts = prompt_texts(config, normalise_windows(split.gather(torch.arange(len(split)))[0]), _DESCRIPTION)
    assert len(prompts) == len(split)
    for row, ids in enumerate(tokenizer(texts)["input_ids"]):
        assert prompts.lengths[row] == len(ids)
        assert prompts.ids[row, : len(ids)].tolist() == ids
        assert (prompts.ids[row, len(ids) :] == prompts.pad_id).all()


def test_ids_are_memory_mapped_and_read_only(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    prompts = _prompts(_config(), split, tokenizer, tmp_path)
    assert isinstance(prompts.ids, np.memmap)
    assert not prompts.ids.flags.writeable
    assert prompts.ids.dtype == np.uint16
    assert prompts.pad_id == tokenizer.pad_token_id


def test_prefix_is_the_longest_that_all_prompts_share(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    prompts = _prompts(_config(), split, tokenizer, tmp_path)
    prefix = prompts.prefix_length
    assert prefix > 10
    assert (prompts.ids[:, :prefix] == prompts.ids[0, :prefix]).all()
    assert (prompts.ids[:, prefix] != prompts.ids[0, prefix]).any()


def test_prefix_leaves_a_token_of_its_own_to_a_lone_prompt(
    split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    prompts = _prompts(_config(), split, tokenizer, tmp_path, indices=torch.tensor([5]))
    assert prompts.prefix_length == prompts.lengths[0] - 1


def test_chunks_do_not_show_in_the_result(
    split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = _prompts(_config(), split, tokenizer, tmp_path / "whole")
    monkeypatch.setattr(tokens, "WINDOWS_PER_CHUNK", 7)
    parts = _prompts(_config(), split, tokenizer, tmp_path / "parts")
    assert np.array_equal(whole.ids, parts.ids)
    assert np.array_equal(whole.lengths, parts.lengths)
    assert whole.prefix_length == parts.prefix_length


def test_shared_prompt_describes_the_mean_of_the_normalised_channels(
    split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    config = _config(prompt_scope="span")
    prompts = _prompts(config, split, tokenizer, tmp_path)
    assert len(prompts) == split.windows_per_channel
    start = 11
    of_channels = torch.arange(split.channels) * split.windows_per_channel + start
    mean = normalise_windows(split.gather(of_channels)[0]).mean(dim=0, keepdim=True)
    expected = prompt_texts(config, mean, _DESCRIPTION)[0]
    assert [_text_of(prompts, tokenizer, int(index)) for index in of_channels] == [expected] * split.channels


@pytest.mark.parametrize("scope", ["channel", "span"])
def test_prompts_of_some_windows_equal_those_of_all(
    scope: str, split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    config = _config(prompt_scope=scope)
    indices = torch.tensor([0, 3, 70, 72, len(split) - 1])
    some = _prompts(config, split, tokenizer, tmp_path, indices=indices)
    every = _prompts(config, split, tokenizer, tmp_path)
    shuffled = indices[torch.tensor([3, 0, 4, 2, 1, 1])]
    assert len(some) <= len(indices)
    for ours, theirs in zip(some.gather(shuffled), every.gather(shuffled), strict=True):
        assert torch.equal(ours, theirs)


def test_window_without_a_prompt_is_refused(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    some = _prompts(_config(), split, tokenizer, tmp_path, indices=torch.tensor([0, 3]))
    with pytest.raises(IndexError, match="Window 9 is not among the 2"):
        some.rows(torch.tensor([3, 9]))


@pytest.mark.parametrize("indices", [[], [3, 3], [4, 1]])
def test_windows_that_are_not_increasing_are_refused(
    indices: list[int], split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    with pytest.raises(ValueError, match="distinct and increasing"):
        _prompts(_config(), split, tokenizer, tmp_path, indices=torch.tensor(indices, dtype=torch.int64))


def test_window_beyond_the_last_is_refused(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    with pytest.raises(IndexError, match="indices must be from 0 to"):
        _prompts(_config(), split, tokenizer, tmp_path, indices=torch.tensor([0, len(split)]))


def test_gather_pads_to_the_width_that_is_asked_for(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    prompts = _prompts(_config(), split, tokenizer, tmp_path)
    longest = prompts.ids.shape[1]
    ids, lengths = prompts.gather(torch.tensor([1, 2]), width=longest + 5)
    assert ids.shape == (2, longest + 5)
    assert ids.dtype == lengths.dtype == torch.int64
    assert (ids[:, longest:] == prompts.pad_id).all()
    with pytest.raises(ValueError, match="width must be at least"):
        prompts.gather(torch.tensor([1, 2]), width=3)


def test_no_prompt_has_no_tokens(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    prompts = _prompts(_config(prompt="none"), split, tokenizer, tmp_path)
    ids, lengths = prompts.gather(torch.tensor([0, 5]))
    assert ids.shape == (2, 0)
    assert lengths.tolist() == [0, 0]
    assert prompts.prefix_length == 0
    assert not list(tmp_path.iterdir())


def test_prompts_survive_the_way_to_another_process(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    prompts = _prompts(_config(), split, tokenizer, tmp_path)
    sent = pickle.dumps(prompts)
    copy = pickle.loads(sent)
    assert len(sent) < prompts.ids.nbytes
    assert np.array_equal(copy.ids, prompts.ids)
    assert torch.equal(copy.gather(torch.tensor([3]))[0], prompts.gather(torch.tensor([3]))[0])


def test_second_run_reads_what_the_first_computed(
    split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = _prompts(_config(), split, tokenizer, tmp_path)

    def refuse(*_: Any) -> list[str]:
        raise AssertionError("the prompts are written a second time")

    monkeypatch.setattr(tokens, "prompt_texts", refuse)
    other_knobs = _config(learning_rate=0.5, batch_size=7, seed=3, dwt_wavelet="haar", precision="bf16")
    second = _prompts(other_knobs, split, tokenizer, tmp_path)
    assert second.ids.filename == first.ids.filename


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "dwt-minimal"},
        {"prompt": "dwt-minimal", "dwt_wavelet": "haar"},
        {"prompt_digits": "4"},
        {"prompt_scope": "span"},
    ],
)
def test_other_prompts_are_kept_apart(
    changes: dict[str, Any], split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    _prompts(_config(), split, tokenizer, tmp_path)
    before = set((tmp_path / "prompts").iterdir())
    _prompts(_config(**changes), split, tokenizer, tmp_path)
    assert len({path for path in (tmp_path / "prompts").iterdir() if path.is_dir()} - before) == 1


def test_other_data_lengths_and_descriptions_are_kept_apart(
    split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    files = {
        _prompts(config, windows, tokenizer, tmp_path, **changes).ids.filename
        for config, windows, changes in [
            (_config(), split, {}),
            (_config(), split, {"description": "Other."}),
            (_config(), split, {"data_checksum": "1"}),
            (_config(), split, {"split_name": "test"}),
            (_config(), Split(split.values + 1, 24, 8), {}),
            (_config(pred_len=9), Split(split.values, 24, 9), {}),
        ]
    }
    assert len(files) == 6


def test_default_cache_is_named_by_the_environment(
    split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "named"))
    prompts = tokenized_prompts(
        _config(), split, tokenizer, split_name="train", data_checksum="0", description=_DESCRIPTION
    )
    assert Path(prompts.ids.filename).is_relative_to(tmp_path / "named")


def test_using_a_tokenizer_does_not_change_its_fingerprint(tokenizer: PreTrainedTokenizerBase):
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == before


def test_added_token_changes_the_fingerprint():
    one, other = (AutoTokenizer.from_pretrained(golden_dir() / "tokenizer") for _ in range(2))
    other.add_tokens(["lags"])
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(other)


def test_wavelet_that_does_not_fit_is_refused(split: Split, tokenizer: PreTrainedTokenizerBase, tmp_path: Path):
    with pytest.raises(InputError, match="dwt_prompt_level must be at most"):
        _prompts(_config(prompt="dwt-minimal", dwt_prompt_level=9), split, tokenizer, tmp_path)
