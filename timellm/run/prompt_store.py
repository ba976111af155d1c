"""Keys and values of the training windows' own prompt tokens, kept for the whole run."""

import math

import numpy as np
import torch
from torch import Tensor

from timellm.machine.cores import usable_memory_gib
from timellm.model.reuse import PromptMemory
from timellm.model.timellm import PromptBatch, TimeLLM
from timellm.run.batches import Batch, copied

SPREAD = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, fill the unit interval evenly: they choose which windows are kept."""


class PromptStore:
    """Computes each window's prompt once and hands out what it kept.

    Every window's prompt is computed with the step that first sees it, so the first epoch fills the store. What does
    not fit is computed again each time; the windows that are kept are spread evenly over the data set. A batch with a
    prompt that is longer than the store is wide is computed as if nothing were kept.

    Args:
        model: The network, its prefix kept.
        prompts: Number of different prompts in the training split.
        used: Those of them that this run sees [prompts].
        tokens: Width of a prompt after the prefix, padding included.
        limit_gib: Size limit, GiB.
        device: Where the store lies.
        windows_per_channel: Divides a window's number to find its prompt where channels share prompts; None where
            every window has its own.

    Raises:
        MemoryError: If the device has less memory than the store takes.
    """

    def __init__(
        self,
        model: TimeLLM,
        prompts: int,
        used: Tensor,
        tokens: int,
        limit_gib: float,
        device: torch.device,
        windows_per_channel: int | None = None,
    ) -> None:
        self._model, self.device, self._windows_per_channel = model, device, windows_per_channel
        self._tokens = tokens
        shape = model.memory_shape(tokens)
        self.bytes_per_prompt = 2 * math.prod(shape) * model.compute_dtype.itemsize
        fitting = int(limit_gib * 2**30 // self.bytes_per_prompt)
        self.share = min(1.0, fitting / prompts)
        kept = used[torch.remainder(used.double() * SPREAD, 1.0) < self.share]
        layers, *per_prompt = shape
        self._slots = np.full(prompts, -1, dtype=np.int64)
        self._slots[kept.numpy()] = np.arange(len(kept))
        self._filled = np.zeros(len(kept), dtype=bool)
        _check_room(len(kept) * self.bytes_per_prompt, limit_gib, device)
        stacked = (2 * layers, len(kept), *per_prompt)
        self.memory = torch.empty(stacked, dtype=model.compute_dtype, device=device)

    @property
    def kept(self) -> int:
        """Number of prompts that it has room for."""
        return len(self._filled)

    def prompt(self, batch: Batch) -> PromptBatch:
        """The batch's prompt with its keys and values, from the store as far as it holds them.

        What is held is decided in main memory, so that a GPU is never waited for.
        """
        if batch.prompt.ids.shape[1] > self._tokens:
            return PromptBatch(batch.prompt.ids, batch.prompt.lengths, self._model.remember_prompt(batch.prompt.ids))
        numbers = batch.indices.numpy()
        slots = self._slots[numbers if self._windows_per_channel is None else numbers % self._windows_per_channel]
        held = slots >= 0
        held[held] = self._filled[slots[held]]
        prompt = batch.prompt
        if held.all():
            return PromptBatch(prompt.ids, prompt.lengths, PromptMemory.of(self._rows(slots)))
        missing = self._places(np.flatnonzero(~held))
        fresh = self._model.remember_prompt(prompt.ids.index_select(0, missing)).stack.to(self.memory.dtype)
        self._keep(slots[~held], fresh)
        if held.any():
            fresh = self._joined(slots, held, missing, fresh)
        return PromptBatch(prompt.ids, prompt.lengths, PromptMemory.of(fresh))

    def forget(self) -> None:
        """Empty the store, so that filling it can be timed again."""
        self._filled.fill(False)

    def _places(self, numbers: np.ndarray) -> Tensor:
        return copied(torch.from_numpy(numbers), self.device)

    def _rows(self, slots: np.ndarray) -> Tensor:
        """Keys and values [2*layers, rows, kv_heads, tokens, head_dim] of slots."""
        return self.memory.index_select(1, self._places(slots))

    def _keep(self, slots: np.ndarray, fresh: Tensor) -> None:
        keeps = np.flatnonzero(slots >= 0)
        if len(keeps):
            self.memory.index_copy_(1, self._places(slots[keeps]), fresh.index_select(1, self._places(keeps)))
            self._filled[slots[keeps]] = True

    def _joined(self, slots: np.ndarray, held: np.ndarray, missing: Tensor, fresh: Tensor) -> Tensor:
        """Rows of a batch, those that are held from the store, the missing ones fresh."""
        rows = fresh.new_empty((len(fresh), len(slots), *fresh.shape[2:]))
        rows.index_copy_(1, self._places(np.flatnonzero(held)), self._rows(slots[held]))
        return rows.index_copy_(1, missing, fresh)


def _check_room(needed: int, limit_gib: float, device: torch.device) -> None:
    """Refuse a store that cannot be held, before a CPU's memory is filled step by step until the system ends the run.

    Args:
        needed: Bytes of the store.
        limit_gib: What the run asked for.
        device: Where it is to lie. On a GPU the memory that is free counts.
    """
    if device.type not in ("cpu", "cuda"):
        return
    there = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else int(usable_memory_gib() * 2**30)
    if needed > there:
        raise MemoryError(
            f"The prompt store must fit in the device's memory ({there / 2**30:.1f} GiB), but with --prompt_store_gib "
            f"{limit_gib:g} it takes {needed / 2**30:.1f} GiB. Use a smaller one, which keeps fewer windows, or "
            "--prompt_scope span."
        )
