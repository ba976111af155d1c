"""What tokenising the prompts of a run takes before its first step, from a sample of them."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timellm.cache import CACHE_VARIABLE, cache_dir
from timellm.contract.config import RunConfig
from timellm.contract.words import duration_words
from timellm.data import SeriesData, Split, stratified_subset
from timellm.prompts.filling import bytes_on_disk, bytes_while_written, has_room
from timellm.prompts.tokens import id_chunks, id_type, is_tokenized, prompts_folder

WORTH_SAYING_SECONDS = 60.0
SAMPLED = 128
"""Windows whose prompts are tokenised to see how long one takes."""
_WARMING_UP = 8
"""Windows before them, because a tokenizer starts its threads with the first."""


@dataclass(frozen=True)
class TokenisingCost:
    """What the prompts take that a run would tokenise.

    Attributes:
        run: Which run that is, in words.
        prompts: Their number.
        seconds: Time that it takes, seconds.
        kept_bytes: What they take on disk.
        needed_bytes: What they take there while they are written.
        folder: Where they are kept.
        free_bytes: Free space there.
    """

    run: str
    prompts: int
    seconds: float
    kept_bytes: float
    needed_bytes: float
    folder: Path
    free_bytes: int

    def note(self) -> str | None:
        """The cost in words; None where it takes no time to speak of."""
        if self.seconds <= WORTH_SAYING_SECONDS:
            return None
        text = (
            f"Before its first step, {self.run} tokenises {self.prompts:,} prompts, once for all runs with the same "
            f"data and prompt: about {duration_words(self.seconds)} here, and {_gib(self.kept_bytes)} in {self.folder} "
            f"({_gib(self.needed_bytes)} while they are written)."
        )
        if not has_room(self.needed_bytes, self.free_bytes):
            text += f" Only {_gib(self.free_bytes)} are free there: name another folder with {CACHE_VARIABLE}."
        return text


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 0.05 * 2**30 else "less than 0.1 GiB"


def tokenising_cost(config: RunConfig, data: SeriesData, tokenizer: Any) -> TokenisingCost:
    """Measure on some training windows what tokenising all prompts of a run takes; nothing is written.

    Args:
        config: The run: which prompt, for which windows; not `none`.
        data: Its data set.
        tokenizer: The backbone's fast tokenizer.
    """
    per_prompt, ids = _sampled(config, data, tokenizer)
    counts = _prompts_of_run(config, data)
    if sum(counts.values()) * per_prompt > WORTH_SAYING_SECONDS:
        counts = {name: count for name, count in counts.items() if not _is_there(config, data, tokenizer, name, count)}
    size = np.dtype(id_type(tokenizer)).itemsize
    total, largest = sum(counts.values()), max(counts.values(), default=0)
    kept = bytes_on_disk(total, ids, size)
    return TokenisingCost(
        run="a run on all windows" if config.train_samples is None else "this run",
        prompts=total,
        seconds=total * per_prompt,
        kept_bytes=kept,
        needed_bytes=kept - bytes_on_disk(largest, ids, size) + bytes_while_written(largest, ids, size),
        folder=prompts_folder(),
        free_bytes=shutil.disk_usage(cache_dir()).free,
    )


def _splits(data: SeriesData) -> Mapping[str, Split]:
    return {"train": data.train, "validation": data.validation, "test": data.test}


def _all_prompts(config: RunConfig, split: Split) -> int:
    return split.windows_per_channel if config.prompt_scope == "span" else len(split)


def _prompts_of_run(config: RunConfig, data: SeriesData) -> dict[str, int]:
    """Prompts of each split that the run reads; a run on some training windows leaves out the test."""
    counts = {name: _all_prompts(config, split) for name, split in _splits(data).items()}
    if config.train_samples is not None:
        counts = {"train": min(config.train_samples, counts["train"]), "validation": counts["validation"]}
    if config.val_samples is not None:
        counts["validation"] = min(config.val_samples, counts["validation"])
    return counts


def _is_there(config: RunConfig, data: SeriesData, tokenizer: Any, name: str, count: int) -> bool:
    """Whether the prompts of a split are kept from an earlier run, which is known only where the run reads them all."""
    split = _splits(data)[name]
    return count == _all_prompts(config, split) and is_tokenized(
        config, split, tokenizer, split_name=name, data_checksum=data.checksum, description=data.description
    )


def _sampled(config: RunConfig, data: SeriesData, tokenizer: Any) -> tuple[float, float]:
    """Seconds and tokens of a prompt, as some training windows have them."""
    split = data.train.to("cpu")
    for windows in (_WARMING_UP, SAMPLED):
        chosen = stratified_subset(split, windows)
        kept = (chosen % split.windows_per_channel).unique() if config.prompt_scope == "span" else chosen
        began = time.perf_counter()
        lengths = [len(row) for chunk in id_chunks(config, split, tokenizer, kept, data.description)() for row in chunk]
        seconds = time.perf_counter() - began
    return seconds / len(lengths), sum(lengths) / len(lengths)
