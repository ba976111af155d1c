"""Token ids of every window's prompt, computed once for all trials that ask for the same."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from timellm import cache
from timellm.contract.config import RunConfig
from timellm.data import Split
from timellm.prompts.cache import FORMAT_VERSION, TokenStore, load_or_build
from timellm.prompts.dwt import check_wavelet_prompt
from timellm.prompts.statistics import normalise_windows
from timellm.prompts.text import prompt_texts

WINDOWS_PER_CHUNK = 4096
_PROBE = "min value -1.5, lags [0, 1]"


@dataclass(frozen=True, eq=False, slots=True)
class PromptTokens:
    """Token ids of the prompts of a split, or of some of its windows.

    Attributes:
        ids: Token ids [prompts, tokens], padded on the right, uint16 or uint32; memory-mapped and read-only.
        lengths: Tokens of each prompt [prompts], int64.
        prefix_length: Leading tokens that all prompts share; fewer than the shortest prompt has.
        pad_id: What prompts are padded with.
        windows_per_channel: Windows of one channel of the split.
        is_shared: Whether a prompt serves all channels of its time span.
        kept: The windows (or, if shared, time spans) that have a prompt, increasing [prompts]; None if all do.
    """

    ids: np.ndarray
    lengths: np.ndarray
    prefix_length: int
    pad_id: int
    windows_per_channel: int
    is_shared: bool
    kept: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the name of the memory-mapped file to another process, not its content."""
        ids = str(self.ids.filename) if isinstance(self.ids, np.memmap) else self.ids
        return _reopen, (
            ids,
            self.lengths,
            self.prefix_length,
            self.pad_id,
            self.windows_per_channel,
            self.is_shared,
            self.kept,
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest of them."""
        return int(self.lengths.max())

    @property
    def prefix(self) -> Tensor:
        """Ids of the leading tokens that all of them share [prefix_length], int64."""
        return torch.from_numpy(self.ids[0, : self.prefix_length].astype(np.int64))

    def rows(self, indices: Tensor) -> Tensor:
        """Which rows of `ids` hold the prompts of these windows.

        Args:
            indices: Window indices of the split [n], int64.

        Returns:
            Rows [n], int64, on the CPU.

        Raises:
            IndexError: If a window has no prompt here.
        """
        wanted = indices.cpu()
        if self.is_shared:
            wanted = wanted % self.windows_per_channel
        if self.kept is None:
            return wanted
        rows = torch.searchsorted(self.kept, wanted).clamp_max_(len(self.kept) - 1)
        if not torch.equal(self.kept[rows], wanted):
            missing = int(wanted[self.kept[rows] != wanted][0])
            raise IndexError(f"Window {missing} is not among the {len(self.kept)} that prompts were made for.")
        return rows

    def gather(self, indices: Tensor, *, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Prompts of these windows.

        Args:
            indices: Window indices of the split [n], int64.
            width: Columns of the result (default: the longest of these prompts).

        Returns:
            Token ids [n, width], padded on the right, and lengths [n], both int64 on the CPU.
        """
        rows = self.rows(indices).numpy()
        lengths = self.lengths[rows]
        longest = int(lengths.max(initial=0))
        width = longest if width is None else width
        if width < longest:
            raise ValueError(f"width must be at least {longest}, the longest of these prompts, got {width}.")
        held = self.ids[rows, :width].astype(np.int64)
        padding = np.full((len(rows), width - held.shape[1]), self.pad_id, dtype=np.int64)
        return torch.from_numpy(np.concatenate([held, padding], axis=1)), torch.from_numpy(lengths)


def tokenized_prompts(
    config: RunConfig,
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split_name: str,
    data_checksum: str,
    description: str,
    cache_dir: Path | None = None,
    indices: Tensor | None = None,
) -> PromptTokens:
    """Token ids of the prompts of a split, from the cache if they were computed before.

    With `prompt_scope span` a prompt describes the mean, over the channels, of the normalised windows of its time
    span.

    Args:
        config: The run: which prompt, how it is written, for which windows.
        split: The windows.
        tokenizer: The backbone's fast tokenizer; special tokens are left to it.
        split_name: train, validation or test.
        data_checksum: Checksum of the data file.
        description: What the prompt says of the data set.
        cache_dir: Where prompts are kept (default: $TIMELLM_CACHE_DIR or ~/.cache/timellm).
        indices: Only the prompts of these windows, distinct and increasing, int64 [n] (default: of all).

    Raises:
        InputError: If the wavelet or its level does not suit the window, or the cache cannot be written.
    """
    check_wavelet_prompt(config)
    is_shared = config.prompt_scope == "span"
    kept = _kept(split, indices, is_shared)
    pad_id = pad_id_of(tokenizer)
    count = len(kept) if kept is not None else number_of_prompts(config, split)
    if config.prompt == "none":
        store = TokenStore(ids=np.zeros((count, 0), np.uint16), lengths=np.zeros(count, np.int64), prefix_length=0)
    else:
        split = split.to("cpu")
        key = prompts_key(config, split, tokenizer, kept, (split_name, data_checksum, description))
        store = load_or_build(
            prompts_folder(cache_dir) / key,
            id_chunks(config, split, tokenizer, kept, description),
            dtype=id_type(tokenizer),
            pad_id=pad_id,
            prompts=count,
        )
    return PromptTokens(
        ids=store.ids,
        lengths=store.lengths,
        prefix_length=store.prefix_length,
        pad_id=pad_id,
        windows_per_channel=split.windows_per_channel,
        is_shared=is_shared,
        kept=kept,
    )


def number_of_prompts(config: RunConfig, split: Split) -> int:
    """Prompts that the windows of a split have: one each, or one for every time span."""
    return split.windows_per_channel if config.prompt_scope == "span" else len(split)


def prompts_folder(cache_dir: Path | None = None) -> Path:
    """The folder that the prompts of all runs are in, below `cache_dir` or else the default one."""
    return (cache_dir or cache.cache_dir()) / "prompts"


def tokenized_windows(
    config: RunConfig, split: Split, tokenizer: PreTrainedTokenizerBase, *, description: str, indices: Tensor
) -> PromptTokens:
    """Token ids of the prompts of some windows, in memory and nowhere else; see `tokenized_prompts`.

    Args:
        config: The run: which prompt, how it is written, for which windows; not `none`.
        split: The windows.
        tokenizer: The backbone's fast tokenizer.
        description: What the prompt says of the data set.
        indices: The windows, distinct and increasing, int64 [n].
    """
    is_shared = config.prompt_scope == "span"
    kept = _kept(split, indices, is_shared)
    pad_id = pad_id_of(tokenizer)
    rows = [row for chunk in id_chunks(config, split.to("cpu"), tokenizer, kept, description)() for row in chunk]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.full((len(rows), int(lengths.max())), pad_id, dtype=id_type(tokenizer))
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    shared = int(np.argmin([*(ids == ids[0]).all(axis=0), False]))
    return PromptTokens(
        ids=ids,
        lengths=lengths,
        prefix_length=min(shared, int(lengths.min()) - 1),
        pad_id=pad_id,
        windows_per_channel=split.windows_per_channel,
        is_shared=is_shared,
        kept=kept,
    )


def fixed_prefix(config: RunConfig, tokenizer: PreTrainedTokenizerBase, description: str) -> tuple[int, ...]:
    """Ids of the tokens that the prompts of a data set start with, whatever their windows: those before any number.

    Args:
        config: The run: which prompt, how it is written.
        tokenizer: The backbone's fast tokenizer.
        description: What the prompt says of the data set.

    Raises:
        InputError: If the wavelet or its level does not suit the window.
    """
    steps = torch.linspace(-1, 1, config.seq_len)
    windows = normalise_windows(torch.stack((torch.zeros(config.seq_len), steps, steps.square(), -steps.square())))
    first, *others = tokenizer(prompt_texts(config, windows, description))["input_ids"]
    length = min(len(first) - 1, *(_common_length(first, other) for other in others))
    return tuple(first[:length])


def _common_length(first: list[int], second: list[int]) -> int:
    """Leading ids that two prompts share."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that decides which ids a text gets, hexadecimal."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Both change when a tokenizer is used, and neither has a say in prompts.
    backend.pop("padding", None)
    backend.pop("truncation", None)
    return _digest([type(tokenizer).__name__, backend, tokenizer(_PROBE)["input_ids"], pad_id_of(tokenizer)])


def _kept(split: Split, indices: Tensor | None, is_shared: bool) -> Tensor | None:
    if indices is None:
        return None
    indices = indices.cpu()
    if len(indices) == 0 or not bool((indices[1:] > indices[:-1]).all()):
        raise ValueError("indices must be at least one window, distinct and increasing.")
    if int(indices[0]) < 0 or int(indices[-1]) >= len(split):
        raise IndexError(f"indices must be from 0 to {len(split) - 1}, got {int(indices[0])} to {int(indices[-1])}.")
    return torch.unique(indices % split.windows_per_channel) if is_shared else indices


def id_chunks(
    config: RunConfig, split: Split, tokenizer: PreTrainedTokenizerBase, kept: Tensor | None, description: str
) -> Callable[[], Iterator[list[list[int]]]]:
    """Tokenise all prompts, some at a time so that memory does not grow with the number of windows."""
    is_shared = config.prompt_scope == "span"
    prompts = kept if kept is not None else torch.arange(split.windows_per_channel if is_shared else len(split))

    def tokenise() -> Iterator[list[list[int]]]:
        for chunk in prompts.split(max(1, WINDOWS_PER_CHUNK // (split.channels if is_shared else 1))):
            described = _span_means(split, chunk) if is_shared else normalise_windows(split.gather(chunk)[0])
            texts = prompt_texts(config, described, description)
            yield tokenizer(texts, return_attention_mask=False, return_token_type_ids=False)["input_ids"]

    return tokenise


def _span_means(split: Split, starts: Tensor) -> Tensor:
    """Mean over the channels of the normalised windows that start at these rows [n] -> [n, seq_len]."""
    offsets = torch.arange(split.channels) * split.windows_per_channel
    windows = split.gather((starts[:, None] + offsets).flatten())[0]
    return normalise_windows(windows).view(len(starts), split.channels, split.seq_len).mean(dim=1)


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """What its prompts are padded with."""
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return 0


def id_type(tokenizer: PreTrainedTokenizerBase) -> type[np.unsignedinteger]:
    """The type that ids are kept in: the narrower one that holds them all."""
    largest = max(pad_id_of(tokenizer), *tokenizer.get_vocab().values())
    return np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32


def prompts_key(
    config: RunConfig,
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    kept: Tensor | None,
    named: tuple[str, str, str],
) -> str:
    """Digest of everything that the ids depend on, and of nothing else: knobs of training share the prompts."""
    split_name, data_checksum, description = named
    is_wavelet = config.prompt.startswith("dwt")
    return _digest(
        {
            "format": FORMAT_VERSION,
            "data": [data_checksum, config.features, config.target, config.percent, split_name],
            "windows": [*split.values.shape, split.seq_len, split.pred_len, _array_digest(split.values)],
            "kept": None if kept is None else _array_digest(kept),
            "prompt": [config.prompt, config.prompt_digits, config.prompt_scope, description],
            "wavelet": [config.dwt_wavelet, config.dwt_prompt_level] if is_wavelet else None,
            "tokenizer": tokenizer_fingerprint(tokenizer),
        }
    )


def _array_digest(values: Tensor) -> str:
    return hashlib.sha256(np.ascontiguousarray(values.numpy()).data).hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _reopen(ids: str | np.ndarray, *fields: Any) -> PromptTokens:
    return PromptTokens(np.load(ids, mmap_mode="r") if isinstance(ids, str) else ids, *fields)
