"""Keys and values of the training windows' own prompt tokens, kept for the whole run."""

import math

import torch
from torch import Tensor

from timellm.model.reuse import PromptMemory
from timellm.model.timellm import PromptBatch, TimeLLM
from timellm.run.batches import Batch, copied

SPREAD = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, fill the unit interval evenly: they choose which windows are kept."""


class PromptStore:
    """Computes each window's prompt once and hands out what it kept.

    Every window's prompt is computed with the step that first sees it, so the first epoch fills the store. What does
    not fit is computed again each time; the windows that are kept are spread evenly over the data set.

    Args:
        model: The network, its prefix kept.
        prompts: Number of different prompts in the training split.
        used: Those of them that this run sees [prompts].
        tokens: Width of a prompt behind the prefix, padding included.
        limit_gib: Size limit, GiB.
        device: Where the store lies.
        windows_per_channel: Divides a window's number to find its prompt where channels share prompts; None where
            every window has its own.
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
        self._model, self._device, self._windows_per_channel = model, device, windows_per_channel
        shape = model.memory_shape(tokens)
        self.bytes_per_prompt = 2 * math.prod(shape) * model.compute_dtype.itemsize
        fitting = int(limit_gib * 2**30 // self.bytes_per_prompt)
        self.share = min(1.0, fitting / prompts)
        kept = used[torch.remainder(used.double() * SPREAD, 1.0) < self.share]
        layers, per_layer = shape[0], (len(kept), *shape[1:])
        self._slots = torch.full((prompts,), -1, dtype=torch.int64)
        self._slots[kept] = torch.arange(len(kept))
        self._filled = torch.zeros(len(kept), dtype=torch.bool)
        self._keys = [torch.empty(per_layer, dtype=model.compute_dtype, device=device) for _ in range(layers)]
        self._values = [torch.empty(per_layer, dtype=model.compute_dtype, device=device) for _ in range(layers)]

    @property
    def kept(self) -> int:
        """Number of prompts that it has room for."""
        return len(self._filled)

    def prompt(self, batch: Batch) -> PromptBatch:
        """The batch's prompt with its keys and values, from the store as far as it holds them."""
        numbers = batch.indices if self._windows_per_channel is None else batch.indices % self._windows_per_channel
        slots = self._slots[numbers]
        held = slots >= 0
        held[held.clone()] = self._filled[slots[held]]
        prompt = batch.prompt
        if bool(held.all()):
            places = copied(slots, self._device)
            memory = PromptMemory(tuple(k[places] for k in self._keys), tuple(v[places] for v in self._values))
            return PromptBatch(prompt.ids, prompt.lengths, memory)
        missing = copied((~held).nonzero().squeeze(1), self._device)
        fresh = self._model.remember_prompt(prompt.ids[missing])
        self._keep(slots[~held], fresh)
        if bool(held.any()):
            fresh = self._joined(slots, held, missing, fresh)
        return PromptBatch(prompt.ids, prompt.lengths, fresh)

    def forget(self) -> None:
        """Empty the store, so that filling it can be timed again."""
        self._filled.fill_(False)

    def _keep(self, slots: Tensor, fresh: PromptMemory) -> None:
        keeps = (slots >= 0).nonzero().squeeze(1)
        chosen = slots[keeps]
        rows, places = copied(keeps, self._device), copied(chosen, self._device)
        for layer, (keys, values) in enumerate(zip(fresh.keys, fresh.values, strict=True)):
            self._keys[layer][places] = keys[rows].to(self._keys[layer].dtype)
            self._values[layer][places] = values[rows].to(self._values[layer].dtype)
        self._filled[chosen] = True

    def _joined(self, slots: Tensor, held: Tensor, missing: Tensor, fresh: PromptMemory) -> PromptMemory:
        """Rows of a batch, those that are held from the store, the missing ones fresh."""
        there, places = (copied(each, self._device) for each in (held.nonzero().squeeze(1), slots[held]))

        def join(store: Tensor, computed: Tensor) -> Tensor:
            rows = store.new_empty((len(slots), *store.shape[1:]))
            rows[there], rows[missing] = store[places], computed.to(store.dtype)
            return rows

        return PromptMemory(
            tuple(map(join, self._keys, fresh.keys)),
            tuple(map(join, self._values, fresh.values)),
        )
