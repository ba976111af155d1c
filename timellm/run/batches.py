"""From window numbers to batches on the device."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from timellm.contract.config import RunConfig
from timellm.data import Split
from timellm.machine.claims import claim_loader_folder
from timellm.model.timellm import PromptBatch
from timellm.prompts import PromptsAsNeeded, PromptTokens, Stopped

STARVED_PERCENT = 20.0
"""Share of the step time, spent waiting for batches, above which a run says so."""


LARGEST_TABLE_BYTES = 2**31
"""Size up to which the token ids of a split's prompts are held on a GPU."""


@dataclass(frozen=True)
class Batch:
    """Windows of one micro batch.

    Attributes:
        indices: Numbers of the windows in their split [rows], in main memory.
        x: Scaled inputs [rows, seq_len].
        y: Scaled targets [windows, pred_len]; rows beyond them repeat a window, only to keep the shape.
        prompt: Prompt tokens of the rows, without the prefix that the model keeps.
    """

    indices: Tensor
    x: Tensor
    y: Tensor
    prompt: PromptBatch


class Groups(Sequence[Tensor]):
    """Groups of window numbers, each made when it is asked for.

    A pass over millions of windows has hundreds of thousands of groups: to make all of them before the first step would
    take seconds and a gigabyte.

    Args:
        count: How many there are.
        make: Gives a group by its number.
    """

    def __init__(self, count: int, make: Callable[[int], Tensor]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        """A group by its number, or several by a slice."""
        if isinstance(number, slice):
            return [self._make(one) for one in range(*number.indices(self._count))]
        if not -self._count <= number < self._count:
            raise IndexError(f"A group's number must be below {self._count}, got {number}.")
        return self._make(number % self._count)


class Batches(Protocol):
    """Batches of one split."""

    def __call__(self, groups: Sequence[Tensor], stopped: Stopped = contextlib.nullcontext) -> Iterator[Batch]:
        """Yield one batch per group of window numbers; clocks are stopped while prompts are tokenised."""
        ...

    def cut_here(self, group: Tensor) -> Batch:
        """The batch of a group of window numbers, cut by this process, whoever loads the others."""
        ...


class WindowBatches:
    """Cuts batches of one split, on the device itself or in loader workers.

    A device that is not the CPU never waits: what a pass needs of its windows' numbers is copied there once, and token
    ids lie there in a table.

    Args:
        config: The run's settings: padding, workers.
        split: Windows to cut.
        prompts: Their prompt tokens; None for no prompt.
        prefix_length: Leading prompt tokens that the model keeps and batches leave out.
        device: Where batches go.
        fixed_tokens: Pad every batch to this many prompt tokens, so that shapes never change; None pads to the
            batch's longest. Only a prompt that is made as it is needed can be longer.
        fixed_rows: Repeat a window until a batch has this many rows, likewise; None leaves it as it is.

    Attributes:
        source: Cuts one batch.
        table: Cuts batches on a device that is not the CPU; None where the source does.
    """

    def __init__(
        self,
        config: RunConfig,
        split: Split,
        prompts: PromptTokens | PromptsAsNeeded | None,
        prefix_length: int,
        device: torch.device,
        fixed_tokens: int | None = None,
        fixed_rows: int | None = None,
    ) -> None:
        self._config, self._device, self._fixed_rows = config, device, fixed_rows
        self._on_device = config.num_workers == 0
        own = split.to(device) if self._on_device else split
        self._prompts = prompts
        self.source = WindowSource(own, prompts, prefix_length, fixed_tokens)
        self.table = build_table(config, own, prompts, prefix_length, device, fixed_tokens)

    def __call__(self, groups: Sequence[Tensor], stopped: Stopped = contextlib.nullcontext) -> Iterator[Batch]:
        """Yield one batch per group of window numbers; clocks are stopped while prompts are tokenised."""
        padded = Groups(len(groups), lambda number: self._padded(groups[number]))
        if self.table is not None and padded:
            parts: Iterable[tuple[Tensor, ...]] = self.table.batches(padded)
        else:
            ready = self._prompts.ahead(padded, stopped) if isinstance(self._prompts, PromptsAsNeeded) else padded
            parts = (self.source[group] for group in ready) if self._on_device else self._load(ready)
        for group, tensors in zip(groups, parts, strict=True):
            yield self._to_device(tensors, len(group))

    def cut_here(self, group: Tensor) -> Batch:
        """The batch of a group of window numbers, cut by this process, whoever loads the others."""
        if isinstance(self._prompts, PromptsAsNeeded):
            (group,) = self._prompts.ahead([group])
        return self._to_device(self.source[group], len(group))

    def _padded(self, group: Tensor) -> Tensor:
        missing = (self._fixed_rows or 0) - len(group)
        return torch.cat((group, group[-1:].expand(missing))) if missing > 0 else group

    def _load(self, groups: Iterable[Tensor]) -> DataLoader:
        pinned = self._config.pin_memory and self._device.type == "cuda"
        if self._config.num_workers:
            claim_loader_folder()
        return DataLoader(
            self.source,
            batch_size=None,
            sampler=groups,  # type: ignore[arg-type]
            num_workers=self._config.num_workers,
            prefetch_factor=self._config.prefetch_factor,
            pin_memory=pinned,
            worker_init_fn=_use_one_thread,
            generator=torch.Generator(),  # the global one belongs to dropout
        )

    def _to_device(self, parts: tuple[Tensor, ...], windows: int) -> Batch:
        indices, *rest = parts
        x, y, ids, lengths = (copied(part, self._device) for part in rest)
        masked = self._config.prompt_padding == "masked"
        return Batch(indices, x, y[:windows], PromptBatch(ids, lengths if masked else None))


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, copied without waiting for it: from memory that is page-locked for a GPU's sake."""
    if tensor.device == device or device.type == "cpu":
        return tensor.to(device)
    pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)


class WindowSource(Dataset):
    """Indexed by a tensor of window numbers; picklable, so that loader workers can hold it."""

    def __init__(
        self, split: Split, prompts: PromptTokens | PromptsAsNeeded | None, prefix: int, fixed_tokens: int | None
    ) -> None:
        self.split, self.prompts, self.prefix = split, prompts, prefix
        self._fixed_tokens = fixed_tokens

    def __getitem__(self, group: Tensor) -> tuple[Tensor, ...]:
        x, y = self.split.gather(copied(group, self.split.values.device))
        if self.prompts is None:
            none = torch.zeros(len(group), 0, dtype=torch.int64)
            return group, x, y, none, none.sum(dim=1)
        ids, lengths = self.prompts.gather(group, width=self._fixed_tokens)
        return group, x, y, ids[:, self.prefix :], lengths - self.prefix


class DeviceTable:
    """Windows and token ids that lie on a device; a batch is cut by two operations there.

    Args:
        split: Windows, on the device.
        prompts: Prompt tokens.
        prefix: Leading tokens that batches leave out.
        width: Tokens of every batch, those of the prefix included.
    """

    def __init__(self, split: Split, prompts: PromptTokens, prefix: int, width: int) -> None:
        self._split, self._prompts, self._prefix = split, prompts, prefix
        ids = np.full((len(prompts), width - prefix), prompts.pad_id, dtype=np.int32)
        ids[:, : prompts.ids.shape[1] - prefix] = prompts.ids[:, prefix:width]
        self._ids = torch.from_numpy(ids).to(split.values.device)

    def numbers(self, groups: Sequence[Tensor]) -> Tensor:
        """Channel, first row, row of the table and length of the prompt of windows, in main memory [4, windows]."""
        windows = torch.cat(list(groups))
        rows = self._prompts.rows(windows)
        lengths = torch.from_numpy(self._prompts.lengths[rows.numpy()]) - self._prefix
        return torch.stack((*self._split.places(windows), rows, lengths))

    def batches(self, groups: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Cut batches; what they need of their windows' numbers is copied at once, before the first."""
        each = self.numbers(groups)
        sizes = [len(group) for group in groups]
        parts = copied(each, self._split.values.device).split(sizes, dim=1)
        for group, (channel, start, row, length) in zip(groups, parts, strict=True):
            x, y = self._split.cut(channel, start)
            yield group, x, y, self._ids.index_select(0, row), length


def build_table(
    config: RunConfig,
    split: Split,
    prompts: PromptTokens | PromptsAsNeeded | None,
    prefix: int,
    device: torch.device,
    width: int | None,
) -> DeviceTable | None:
    """The table of a device that is not the CPU; None where batches are cut elsewhere, or it would be too big."""
    if config.num_workers or not isinstance(prompts, PromptTokens) or width is None or device.type == "cpu":
        return None
    if 4 * len(prompts) * (width - prefix) > LARGEST_TABLE_BYTES:
        return None
    return DeviceTable(split, prompts, prefix, width)


def micro_batches(order: Tensor, size: int) -> Sequence[Tensor]:
    """Cut window numbers [windows] into groups of a size; the last may be smaller."""
    return Groups(max(1, -(-len(order) // size)), lambda number: order[number * size : (number + 1) * size])


def starvation_note(config: RunConfig, wait_percent: float) -> str | None:
    """What to do about a device that waits for its batches; None where it hardly does.

    Args:
        config: The run's settings.
        wait_percent: Share of the steady steps' time in which the device waited, percent.
    """
    if wait_percent <= STARVED_PERCENT:
        return None
    if config.num_workers == 0:
        remedy = "Use loader processes: --num_workers 2 or more."
    else:
        remedy = (
            f"Use more --num_workers (now {config.num_workers}, at most one per core), a larger --prefetch_factor "
            f"(now {config.prefetch_factor}), or --num_workers 0, which holds the windows on the device."
        )
    return f"The device waited for its batches in {wait_percent:.0f} % of the step time. {remedy}"


def _use_one_thread(worker: int) -> None:
    torch.set_num_threads(1)
