"""Prompts of a split that has very many windows: tokenised just before they are needed, and kept for later runs.

A run that tokenises all of them first would stand still for hours. What a run has to know of all prompts before its
first step is known without them: the tokens that they share are those before any number, and the longest is estimated
from a sample; a batch with a longer one is wider.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from timellm.contract.config import RunConfig
from timellm.data import SeriesData, Split, stratified_subset
from timellm.prompts.cache import unwritable
from timellm.prompts.dwt import check_wavelet_prompt
from timellm.prompts.filling import check_disk
from timellm.prompts.growing import BYTES_PER_PROMPT, GrowingStore
from timellm.prompts.tokens import (
    fixed_prefix,
    id_chunks,
    id_type,
    number_of_prompts,
    pad_id_of,
    prompts_folder,
    prompts_key,
)

MOST_TOKENISED_FIRST = 250_000
"""Prompts of a split above which none of a run's splits has all of them tokenised before the first step."""
WINDOWS_AHEAD = 2048
"""Windows whose prompts are tokenised together: those of the batches that come next."""
SAMPLED = 512
"""Windows that the longest prompt is estimated from, spread over channels and time; one of every channel at least."""
SPARE_TOKENS = 8
"""Tokens that the longest prompt is taken to have above the longest of the sample."""

Stopped = Callable[[], AbstractContextManager[Any]]
"""Stops the clocks of a run for a while."""


class PromptsAsNeeded:
    """Token ids of the prompts of a split, made in the process that hands out batches and read in any.

    Args:
        store: Keeps them.
        make: Gives the ids of prompts, by their increasing numbers [n], some at a time; None in a process that only
            reads.
        check_length: Called with the length of the longest of some prompts; raises where the model cannot read it.
        prefix: Ids of the tokens that all of them start with.
        pad_id: What prompts are padded with.
        windows_per_channel: Divides a window's number to find its prompt where channels share prompts; None where every
            window has its own.

    Attributes:
        longest: Tokens that the longest prompt is taken to have.
        made: Prompts that this process tokenised.
        seconds: Time that it took.
    """

    longest: int = 0

    def __init__(
        self,
        store: GrowingStore,
        make: Callable[[Tensor], Iterator[list[list[int]]]] | None,
        check_length: Callable[[int], None],
        prefix: tuple[int, ...],
        pad_id: int,
        windows_per_channel: int | None,
    ) -> None:
        self._store, self._make, self._check_length = store, make, check_length
        self._prefix, self.pad_id, self._windows_per_channel = prefix, pad_id, windows_per_channel
        self._ready = np.zeros(len(store), dtype=bool)
        self.made, self.seconds = 0, 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets what it needs for reading."""
        return PromptsAsNeeded, (self._store, None, _accept, self._prefix, self.pad_id, self._windows_per_channel)

    @property
    def prefix(self) -> Tensor:
        """Ids of the leading tokens that all of them share [tokens], int64."""
        return torch.tensor(self._prefix, dtype=torch.int64)

    def ahead(self, groups: Sequence[Tensor], stopped: Stopped = contextlib.nullcontext) -> Iterator[Tensor]:
        """The same groups of windows, each handed out once its prompts are there.

        Where one is missing, the prompts of the groups after it are made with it, because many together take less
        time, and the clocks stop once for all.

        Args:
            groups: Numbers of windows, in the order they will be read.
            stopped: Stops the clocks of the run meanwhile.
        """
        ready = 0
        for number, group in enumerate(groups):
            if number >= ready and len(self._missing(group)):
                ready = self._last_of_block(groups, number)
                missing = self._missing(torch.cat(list(groups[number:ready])))
                with stopped():
                    self.add(missing)
            yield group

    def gather(self, indices: Tensor, *, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Prompts of windows that `ahead` has handed out.

        Args:
            indices: Window indices of the split [n], int64.
            width: Columns of the result, more where one of these prompts is longer (default: the longest of them).

        Returns:
            Token ids [n, width], padded on the right, and lengths [n], both int64 on the CPU.
        """
        found = self._store.find(self._rows(indices))
        if any(row is None for row in found):
            raise RuntimeError("Prompts that were there a moment ago are gone. Does something else change their cache?")
        parts = [row for row in found if row is not None]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        longest = int(lengths.max(initial=0))
        width = max(longest, width or 0)
        ids = np.full((len(parts), width), self.pad_id, dtype=np.int64)
        ids[np.arange(width) < lengths[:, None]] = np.concatenate(parts)
        return torch.from_numpy(ids), torch.from_numpy(lengths)

    def estimate_longest(self, windows: Tensor) -> None:
        """Take the longest prompt from those of some windows [n], which are made."""
        list(self.ahead([windows]))
        longest = int(self.gather(windows)[1].max())
        self._check_length(longest)
        self.longest = longest + SPARE_TOKENS

    def _rows(self, windows: Tensor) -> np.ndarray:
        numbers = windows.cpu().numpy()
        return numbers if self._windows_per_channel is None else numbers % self._windows_per_channel

    def _missing(self, windows: Tensor) -> np.ndarray:
        """Numbers of their prompts that are not there, increasing; the others were looked at."""
        rows = self._rows(windows)
        unknown = np.unique(rows[~self._ready[rows]])
        is_there = np.array([found is not None for found in self._store.find(unknown)], dtype=bool)
        self._ready[unknown[is_there]] = True
        return unknown[~is_there]

    def _last_of_block(self, groups: Sequence[Tensor], first: int) -> int:
        """The number after that of the last group that is tokenised together with the first."""
        windows, number = 0, first
        while number < len(groups) and windows < WINDOWS_AHEAD:
            windows += len(groups[number])
            number += 1
        return number

    def add(self, rows: np.ndarray) -> None:
        """Tokenise the prompts of rows [rows], and keep their ids."""
        if self._make is None:
            raise RuntimeError("Prompts are made in the process that hands out batches.")
        began = time.perf_counter()
        done = 0
        for ids in self._make(torch.from_numpy(rows)):
            self._check(ids)
            now = rows[done : done + len(ids)]
            try:
                self._store.add(now, ids)
            except OSError as error:
                raise unwritable(prompts_folder(), error) from error
            self._ready[now] = True
            done += len(ids)
        self.made += done
        self.seconds += time.perf_counter() - began

    def _check(self, prompts: list[list[int]]) -> None:
        """Refuse what the model cannot read, and see that all start as all others do."""
        self._check_length(max(map(len, prompts)))
        prefix = list(self._prefix)
        if any(ids[: len(prefix)] != prefix or len(ids) == len(prefix) for ids in prompts):
            raise RuntimeError("A prompt does not start with the tokens that are before its first number.")


def prompts_as_needed(
    config: RunConfig,
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split_name: str,
    data_checksum: str,
    description: str,
    check_length: Callable[[int], None] = lambda length: None,
) -> PromptsAsNeeded:
    """Token ids of the prompts of a split, each made when it is needed; see `tokenized_prompts`.

    Args:
        config: The run: which prompt, how it is written, for which windows; not `none`.
        split: The windows.
        tokenizer: The backbone's fast tokenizer.
        split_name: train, validation or test.
        data_checksum: Checksum of the data file.
        description: What the prompt says of the data set.
        check_length: Raises where the model cannot read a prompt of so many tokens.

    Raises:
        InputError: If the wavelet or its level does not suit the window, the cache cannot be written, or the prompts
            will not fit there.
    """
    check_wavelet_prompt(config)
    split = split.to("cpu")
    is_shared = config.prompt_scope == "span"
    count = split.windows_per_channel if is_shared else len(split)
    named = (split_name, data_checksum, description)
    folder = growing_folder(prompts_key(config, split, tokenizer, None, named))
    try:
        store = GrowingStore(folder, count, id_type(tokenizer))
    except OSError as error:
        raise unwritable(folder.parent, error) from error

    def make(rows: Tensor) -> Iterator[list[list[int]]]:
        return id_chunks(config, split, tokenizer, rows, description)()

    prompts = PromptsAsNeeded(
        store,
        make,
        check_length,
        fixed_prefix(config, tokenizer, description),
        pad_id_of(tokenizer),
        split.windows_per_channel if is_shared else None,
    )
    prompts.estimate_longest(stratified_subset(split, max(SAMPLED, split.channels)))
    left = count - store.count()
    check_disk(folder.parent, left, bytes_kept(left, prompts.longest, np.dtype(id_type(tokenizer)).itemsize))
    return prompts


def bytes_kept(prompts: int, ids: float, bytes_per_id: int) -> float:
    """Bytes that prompts of so many ids on average take on disk."""
    return prompts * (ids * bytes_per_id + BYTES_PER_PROMPT)


def made_as_needed(config: RunConfig, data: SeriesData, whole: Iterable[str]) -> set[str]:
    """The splits whose prompts a run tokenises as it needs them, of those that it reads as a whole."""
    names = set(whole)
    most = max((number_of_prompts(config, data.split(name)) for name in names), default=0)
    return names if most > MOST_TOKENISED_FIRST else set()


def growing_folder(key: str, cache_dir: Path | None = None) -> Path:
    """Where the prompts with a key are kept that are made as they are needed."""
    return prompts_folder(cache_dir) / f"growing-{key}"


def _accept(length: int) -> None:
    """Whoever reads prompts finds their length checked."""
