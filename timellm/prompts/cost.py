"""What tokenising the prompts of a run takes, from a sample of them."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timellm.cache import CACHE_VARIABLE, cache_dir
from timellm.contract.config import RunConfig
from timellm.contract.words import duration_words
from timellm.data import SeriesData, stratified_subset
from timellm.prompts.as_needed import bytes_kept, growing_folder, made_as_needed
from timellm.prompts.filling import bytes_on_disk, bytes_while_written, has_room
from timellm.prompts.growing import GrowingStore
from timellm.prompts.tokens import id_chunks, id_type, number_of_prompts, prompts_folder, prompts_key

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
        is_as_needed: Whether those of a split are tokenised while the run goes on.
    """

    run: str
    prompts: int
    seconds: float
    kept_bytes: float
    needed_bytes: float
    folder: Path
    free_bytes: int
    is_as_needed: bool = False

    def note(self) -> str | None:
        """The cost in words; None where it takes no time to speak of."""
        if self.seconds <= WORTH_SAYING_SECONDS:
            return None
        place = "between its steps, as they need them" if self.is_as_needed else "before its first step"
        text = (
            f"{self.run} tokenises {self.prompts:,} prompts {place}, once for all runs with the same data and prompt: "
            f"about {duration_words(self.seconds)} here, which seconds_per_epoch does not count, and "
            f"{_gib(self.kept_bytes)} in {self.folder} ({_gib(self.needed_bytes)} while they are written)."
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
    per_prompt, ids = sampled(config, data, tokenizer)
    counts = _prompts_of_run(config, data)
    whole = [name for name, count in counts.items() if count == number_of_prompts(config, data.split(name))]
    as_needed = made_as_needed(config, data, whole)
    if sum(counts.values()) * per_prompt > WORTH_SAYING_SECONDS:
        for name, count in list(counts.items()):
            counts[name] -= _are_there(config, data, tokenizer, name, count, is_as_needed=name in as_needed)
    size = np.dtype(id_type(tokenizer)).itemsize
    first = [count for name, count in counts.items() if name not in as_needed]
    kept = bytes_on_disk(sum(first), ids, size)
    largest = max(first, default=0)
    while_written = kept - bytes_on_disk(largest, ids, size) + bytes_while_written(largest, ids, size)
    grown = bytes_kept(sum(count for name, count in counts.items() if name in as_needed), ids, size)
    total = sum(counts.values())
    return TokenisingCost(
        run="A run on all windows" if config.train_samples is None else "This run",
        prompts=total,
        seconds=total * per_prompt,
        kept_bytes=kept + grown,
        needed_bytes=while_written + grown,
        folder=prompts_folder(),
        free_bytes=shutil.disk_usage(cache_dir()).free,
        is_as_needed=bool(as_needed),
    )


def _prompts_of_run(config: RunConfig, data: SeriesData) -> dict[str, int]:
    """Prompts of each split that the run reads; a run on some training windows leaves out the test."""
    counts = {name: number_of_prompts(config, split) for name, split in data.splits.items()}
    if config.train_samples is not None:
        counts = {"train": min(config.train_samples, counts["train"]), "validation": counts["validation"]}
    if config.val_samples is not None:
        counts["validation"] = min(config.val_samples, counts["validation"])
    return counts


def _are_there(
    config: RunConfig, data: SeriesData, tokenizer: Any, name: str, count: int, *, is_as_needed: bool
) -> int:
    """Prompts of a split that are kept from earlier runs, which is known only where the run reads them all."""
    split = data.split(name).to("cpu")
    if count < number_of_prompts(config, split):
        return 0
    key = prompts_key(config, split, tokenizer, None, (name, data.checksum, data.description))
    if not is_as_needed:
        return count if (prompts_folder() / key).is_dir() else 0
    folder = growing_folder(key)
    return GrowingStore(folder, count, id_type(tokenizer)).count() if folder.is_dir() else 0


def sampled(config: RunConfig, data: SeriesData, tokenizer: Any) -> tuple[float, float]:
    """Seconds and tokens of a prompt, as some training windows have them."""
    split = data.train.to("cpu")
    for windows in (_WARMING_UP, SAMPLED):
        chosen = stratified_subset(split, windows)
        kept = (chosen % split.windows_per_channel).unique() if config.prompt_scope == "span" else chosen
        began = time.perf_counter()
        lengths = [len(row) for chunk in id_chunks(config, split, tokenizer, kept, data.description)() for row in chunk]
        seconds = time.perf_counter() - began
    return seconds / len(lengths), sum(lengths) / len(lengths)
