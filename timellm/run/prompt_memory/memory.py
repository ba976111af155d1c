"""Between the prompt memory and the network: prompts of a batch, read where they are known and computed where not."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from timellm.backbones import BackboneSource
from timellm.cache import cache_dir
from timellm.contract.config import RunConfig
from timellm.model.reuse import PromptMemory
from timellm.model.timellm import PromptBatch, TimeLLM
from timellm.prompts import Stopped
from timellm.run.batches import Batch, Batches
from timellm.run.prompt_memory.folder import PromptFolder
from timellm.run.prompt_memory.key import memory_key, prompt_name

FOLDER = "prompt_memory"
"""Folder in the cache."""

_GIB = 2**30


def uses_memory(config: RunConfig, source: BackboneSource) -> bool:
    """Whether a run's prompts can be shared: they are frozen, never padded with what is attended to, and real."""
    return (
        config.prompt_prefix != "recompute"
        and config.prompt != "none"
        and config.prompt_padding == "masked"
        and source.weights == "pretrained"
    )


def open_memory(
    config: RunConfig,
    source: BackboneSource,
    tokenizer_digest: str,
    model: TimeLLM,
    prefix: Tensor,
    limit_gib: float,
    device: torch.device,
    root: Path | None = None,
) -> "SharedPrompts":
    """The prompt memory of a run that `uses_memory`.

    Args:
        config: The run's settings.
        source: Its language model.
        tokenizer_digest: Of the tokenizer that makes its prompts.
        model: The network, which keeps the prefix.
        prefix: Ids of the tokens that it keeps [tokens].
        limit_gib: Size limit of all prompts, those of other models and data included, GiB.
        device: Where the run is.
        root: Folder of all prompts (default: in the cache).
    """
    layers, heads, _, width = model.memory_shape(0)
    token_bytes = 2 * heads * width * model.compute_dtype.itemsize
    key = memory_key(config, source, tokenizer_digest, model.product_dtype, device)
    folder = PromptFolder(root or cache_dir() / FOLDER, key, layers, token_bytes, int(limit_gib * _GIB))
    return SharedPrompts(model, folder, prefix, device)


class SharedPrompts:
    """Gives batches the keys and values of their prompts.

    Args:
        model: The network, which keeps the prefix.
        folder: Where prompts are kept.
        prefix: Ids of the tokens that the network keeps [tokens].
        device: Where batches are.

    Attributes:
        found: Prompts that were read so far.
        computed: Prompts that were computed so far.
        seconds: Time that reading, computing and writing them has taken.
    """

    def __init__(self, model: TimeLLM, folder: PromptFolder, prefix: Tensor, device: torch.device) -> None:
        self._model, self._folder, self._device = model, folder, device
        self._prefix = prefix.cpu().to(torch.int64)
        self._layers, self._heads, _, self._width = model.memory_shape(0)
        self._dtype = model.compute_dtype
        self.found, self.computed, self.seconds = 0, 0, 0.0

    @property
    def problem(self) -> str | None:
        """Why prompts are not kept any more; None while they are."""
        return self._folder.problem

    @torch.no_grad()
    def prompt(self, prompt: PromptBatch) -> PromptBatch:
        """The same prompt tokens with their keys and values.

        Args:
            prompt: Prompts without the prefix, padded and with their lengths.
        """
        assert prompt.lengths is not None
        began = time.perf_counter()
        ids, lengths = prompt.ids.cpu().to(torch.int64), prompt.lengths.tolist()
        names = [prompt_name(self._prefix, row[:length]) for row, length in zip(ids, lengths, strict=True)]
        held = self._read(names, lengths)
        if any(name not in held for name in names):
            self._folder.refresh()
            held |= self._read([name for name in names if name not in held], lengths, names)
        self.found += sum(name in held for name in names)
        missing = {name: row for row, name in enumerate(names) if name not in held}
        held |= self._compute(prompt.ids, lengths, missing)
        memory = self._joined([held[name] for name in names], ids.shape[1])
        self.seconds += time.perf_counter() - began
        return PromptBatch(prompt.ids, prompt.lengths, memory)

    def close(self) -> None:
        """Bring what was computed to the disk, so that nothing is written later."""
        began = time.perf_counter()
        self._folder.close()
        self.seconds += time.perf_counter() - began

    def _read(self, names: list[str], lengths: list[int], among: list[str] | None = None) -> dict[str, list[Tensor]]:
        """What is known of these prompts: per layer, keys and values [2, kv_heads, tokens, head_dim]."""
        length_of = dict(zip(among or names, lengths, strict=True))
        found = {}
        for name in dict.fromkeys(names):
            views = self._folder.read(name, length_of[name])
            if views is not None:
                shape = (2, self._heads, length_of[name], self._width)
                found[name] = [torch.frombuffer(view, dtype=self._dtype).view(shape) for view in views]
        return found

    def _compute(self, ids: Tensor, lengths: list[int], missing: dict[str, int]) -> dict[str, list[Tensor]]:
        """Compute prompts and keep them.

        Args:
            ids: Ids of the batch's prompts [rows, tokens], on its device.
            lengths: Tokens of each.
            missing: Rows of the prompts to compute, by name.
        """
        if not missing:
            return {}
        rows = torch.tensor(list(missing.values()), device=ids.device)
        fresh = self._model.remember_prompt(ids[rows])
        layers = [
            torch.stack((keys, values), dim=1).to("cpu", self._dtype)
            for keys, values in zip(fresh.keys, fresh.values, strict=True)
        ]  # each [missing, 2, kv_heads, tokens, head_dim]
        computed = {}
        for number, (name, row) in enumerate(missing.items()):
            parts = [layer[number, :, :, : lengths[row]].contiguous() for layer in layers]
            self._folder.add(name, lengths[row], [part.view(torch.uint8).numpy().tobytes() for part in parts])
            computed[name] = parts
        self.computed += len(missing)
        return computed

    def _joined(self, prompts: list[list[Tensor]], tokens: int) -> PromptMemory:
        """Keys and values of a batch, padded with zeros, which no patch attends to.

        Args:
            prompts: Of each row, per layer [2, kv_heads, its tokens, head_dim].
            tokens: Width of the batch.
        """
        layers = []
        for layer in range(self._layers):
            joined = torch.zeros(2, len(prompts), self._heads, tokens, self._width, dtype=self._dtype)
            for row, parts in enumerate(prompts):
                joined[:, row, :, : parts[layer].shape[2]] = parts[layer]
            layers.append(joined.to(self._device))
        return PromptMemory(tuple(layer[0] for layer in layers), tuple(layer[1] for layer in layers))


class RememberedBatches:
    """Batches whose prompts come from the prompt memory; otherwise as those they are made from.

    Args:
        batches: Cuts the batches.
        prompts: Gives them their prompts' keys and values.
    """

    def __init__(self, batches: Batches, prompts: SharedPrompts) -> None:
        self._batches, self._prompts = batches, prompts

    def __call__(self, groups: Sequence[Tensor], stopped: Stopped = contextlib.nullcontext) -> Iterator[Batch]:
        """Yield one batch per group of window numbers; clocks are stopped while prompts are tokenised."""
        return map(self._remembered, self._batches(groups, stopped))

    def cut_here(self, group: Tensor) -> Batch:
        """The batch of a group of window numbers, cut by this process, whoever loads the others."""
        return self._remembered(self._batches.cut_here(group))

    def _remembered(self, batch: Batch) -> Batch:
        return dataclasses.replace(batch, prompt=self._prompts.prompt(batch.prompt))
