"""What a run needs before its first step: data, tokens, network, batches."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from timellm.backbones import (
    BackboneSource,
    check_backbone,
    check_positions,
    load_backbone,
    load_tokenizer,
    resolve_backbone,
)
from timellm.contract.config import RunConfig
from timellm.data import EpochOrders, SeriesData, Split, load_data, stratified_subset, training_order
from timellm.machine.environment import seed_everything
from timellm.model import devices
from timellm.model.control import PatchAttention
from timellm.model.rounding import product_dtype, round_parameters
from timellm.model.timellm import DTYPES, TimeLLM
from timellm.optimize.deepspeed_config import keeps_checkpoints_on_host
from timellm.optimize.extensions import keep_compiled_code_apart
from timellm.prompts import PromptsAsNeeded, PromptTokens, prompts_as_needed, tokenized_prompts
from timellm.prompts.as_needed import made_as_needed
from timellm.prompts.tokens import fixed_prefix, tokenizer_fingerprint
from timellm.run.batches import Batches, WindowBatches
from timellm.run.prompt_memory import RememberedBatches, SharedPrompts, open_memory, uses_memory
from timellm.run.prompt_store import PromptStore

MOST_TIMED = 2**22
"""Windows that are held ready for timing at most: a step that needs more sees some of them again."""

WIDTH_MULTIPLE = 16
"""Tokens that a prompt's width on a GPU is a multiple of: attention kernels read keys in such blocks."""


@dataclass(frozen=True)
class Windows:
    """Which windows a run uses.

    Attributes:
        epoch_windows: Training windows of the data set; one pass over them is an epoch.
        passes: Training windows in the order they are seen, one tensor [windows] per planned pass; a whole epoch's is
            made when it is asked for.
        timing: More training windows, for timing alone [windows].
        validation: Validation windows [windows].
        all_validation: Validation windows of the data set.
    """

    epoch_windows: int
    passes: Sequence[Tensor]
    timing: Tensor
    validation: Tensor
    all_validation: int

    def steps(self, global_batch: int) -> int:
        """Optimizer steps of all passes."""
        if isinstance(self.passes, EpochOrders):
            return len(self.passes) * math.ceil(self.epoch_windows / global_batch)
        return sum(math.ceil(len(windows) / global_batch) for windows in self.passes)


@dataclass(frozen=True)
class Preparation:
    """Everything that is built before training.

    Attributes:
        data: The data set.
        model: The network, on its device, its prompt prefix kept.
        windows: Which windows are used.
        train: Cuts training batches.
        validation: Cuts validation batches.
        test: Cuts test batches.
        store: Keeps the prompts' keys and values, where the run asks for it.
        memory: Gives batches of training and validation the keys and values of their prompts, where the run shares them
            with others.
        backbone_label: Name of the language model, and whether its weights are random.
        source: The language model that was found; None for the control without one.
        prefix: Leading prompt tokens that the model keeps.
        longest_prompt: Tokens of the longest prompt, those of the prefix included; an estimate where prompts are
            tokenised as they are needed.
        tokenised: Prompts that are.
    """

    data: SeriesData
    model: TimeLLM
    windows: Windows
    train: Batches
    validation: Batches
    test: Batches
    store: PromptStore | None
    backbone_label: str
    source: BackboneSource | None = None
    prefix: tuple[int, ...] = ()
    longest_prompt: int = 0
    memory: SharedPrompts | None = None
    tokenised: tuple[PromptsAsNeeded, ...] = ()


@dataclass(frozen=True)
class _Network:
    """The network and what belongs to its language model.

    Attributes:
        model: The network, on its device.
        source: Its language model; None for the control without.
        prompts: Prompt tokens of each split.
        prefix: Those of their tokens that the network keeps.
        longest: Tokens of the longest prompt.
        memory: The prompt memory, where the run uses it.
    """

    model: Any
    source: BackboneSource | None = None
    prompts: dict[str, PromptTokens | PromptsAsNeeded] = field(default_factory=dict)
    prefix: tuple[int, ...] = ()
    longest: int = 0
    memory: SharedPrompts | None = None


def prepare(
    config: RunConfig,
    device: torch.device,
    timing_windows: int,
    *,
    prompt_memory_gib: float | None = None,
    order_seed: int | None = None,
) -> Preparation:
    """Load the data and the language model and build the network.

    Args:
        config: The run's settings.
        device: Where it runs.
        timing_windows: Training windows to hold ready, at least, for timing.
        prompt_memory_gib: Size limit of the prompt memory, which the run then uses where it can; None for none.
        order_seed: Seed of which training windows are seen and when (default: the run's own).

    Raises:
        InputError: If the data or the language model do not fit the settings.
    """
    data = load_data(config)
    windows = choose_windows(config, data, timing_windows, order_seed)
    if config.has_no_backbone:
        seed_everything(config.seed)
        network = _Network(PatchAttention(config).to(device).train())
    else:
        network = _with_backbone(config, data, windows, device, prompt_memory_gib)
    model, kept, longest = network.model, len(network.prefix), network.longest
    if config.compile_mode != "off":
        keep_compiled_code_apart()
        model.compile_forward()
    cutters: list[Batches] = [
        _cutter(config, name, split, network.prompts.get(name), kept, longest, device)
        for name, split in data.splits.items()
    ]
    memory = network.memory
    if memory is not None:
        cutters = [RememberedBatches(cutter, memory) for cutter in cutters]
    train, validation, test = cutters
    store = _build_store(config, data, windows, model, longest - kept, device) if memory is None else None
    return Preparation(
        data,
        model,
        windows,
        train,
        validation,
        test,
        store,
        "no language model" if network.source is None else network.source.label,
        source=network.source,
        prefix=network.prefix,
        longest_prompt=longest,
        memory=memory,
        tokenised=tuple(part for part in network.prompts.values() if isinstance(part, PromptsAsNeeded)),
    )


def _with_backbone(
    config: RunConfig,
    data: SeriesData,
    windows: Windows,
    device: torch.device,
    prompt_memory_gib: float | None,
) -> _Network:
    """The network around a language model."""
    source = resolve_backbone(config.llm_model, config.llm_path, config.llm_weights)
    check_backbone(config, source)
    tokenizer = load_tokenizer(source) if config.prompt != "none" else None
    makes_as_needed = not (config.prompt_padding == "published" and _has_fixed_width(config, device))
    prompts = _prompts(config, data, source, windows, tokenizer, makes_as_needed=makes_as_needed)
    model = build_network(config, source, device)
    remembers = prompt_memory_gib is not None and uses_memory(config, source)
    prefix, longest = _shared_prefix(config, prompts, data.description, tokenizer if remembers else None)
    check_positions(config, source, max((part.longest for part in _known(prompts)), default=0))
    if has_one_width(config, device):
        longest = -(-longest // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    longest = min(longest, source.max_positions - config.patches)
    if prefix is not None:
        model.keep_prefix(prefix.to(device))
    memory = None
    if prompt_memory_gib is not None and remembers and prefix is not None and tokenizer is not None:
        digest = tokenizer_fingerprint(tokenizer)
        memory = open_memory(config, source, digest, model, prefix, prompt_memory_gib, device)
    kept = () if prefix is None else tuple(prefix.tolist())
    return _Network(model, source, prompts, kept, longest, memory)


def build_network(config: RunConfig, source: BackboneSource, device: torch.device) -> TimeLLM:
    """The network of a run, seeded, on its device, in training mode; `prepare` calls it for a run as a whole."""
    seed_everything(config.seed)
    dtype = torch.float32 if config.tune_layer_norm else DTYPES[config.precision]
    held = dtype if config.prompt_prefix == "recompute" else product_dtype(dtype, device)
    backbone = load_backbone(source, llm_layers=config.llm_layers, dtype=held, attention=config.attention)
    if held != dtype:
        round_parameters(backbone, dtype)
    model = TimeLLM(config, backbone, keeps_on_host=keeps_checkpoints_on_host(config)).to(device).train()
    if devices.launches_kernels(device) and model.compute_dtype.itemsize == 2:
        model.align_vocabulary()
    return model


def has_one_width(config: RunConfig, device: torch.device) -> bool:
    """Whether prompts are padded to one width because the device prepares a kernel for each, which takes a while.

    Padding that is attended to must be what it is.
    """
    return device.type != "cpu" and config.prompt_padding == "masked" and config.prompt != "none"


def _has_fixed_width(config: RunConfig, device: torch.device) -> bool:
    """Whether something relies on batches of one shape."""
    static = config.compile_mode != "off" or config.step_graph or config.prompt_prefix == "store"
    return static or has_one_width(config, device)


def _cutter(
    config: RunConfig,
    name: str,
    split: Split,
    prompts: PromptTokens | PromptsAsNeeded | None,
    kept: int,
    longest: int,
    device: torch.device,
) -> WindowBatches:
    """Batches of a split; of one shape, where something relies on it."""
    compiled = config.compile_mode != "off"
    rows = config.batch_size if name == "train" else config.evaluation_batch
    tokens = longest if _has_fixed_width(config, device) else None
    return WindowBatches(config, split, prompts, kept, device, tokens, rows if compiled else None)


def choose_windows(config: RunConfig, data: SeriesData, timing_windows: int, order_seed: int | None = None) -> Windows:
    """The seeded permutation of each pass, or the part of it that train_samples asks for."""
    count, seed = len(data.train), config.seed if order_seed is None else order_seed
    if config.train_samples is None:
        passes: Sequence[Tensor] = EpochOrders(count, config.train_epochs, seed)
        timing = _first(passes[0], timing_windows) if timing_windows else torch.zeros(0, dtype=torch.int64)
    else:
        timing_windows = min(timing_windows, MOST_TIMED)
        wanted = max(config.train_samples, timing_windows)
        order = torch.cat([training_order(count, epoch, seed) for epoch in range(-(-wanted // count))])
        passes, timing = [_first(order, config.train_samples)], _first(order, timing_windows)
    validation = (
        torch.arange(len(data.validation))
        if config.val_samples is None
        else stratified_subset(data.validation, config.val_samples)
    )
    return Windows(count, passes, timing, validation, len(data.validation))


def _first(order: Tensor, count: int) -> Tensor:
    """A copy of an order's first windows, because a view would hold the whole order in memory."""
    return order[:count].clone()


def _prompts(
    config: RunConfig,
    data: SeriesData,
    source: BackboneSource,
    windows: Windows,
    tokenizer: Any,
    *,
    makes_as_needed: bool,
) -> dict[str, PromptTokens | PromptsAsNeeded]:
    """Tokens of every split that the run reads: of the windows it reads, where those are few.

    Where a split has very many, and that is allowed, they are tokenised as they are needed.
    """
    if tokenizer is None:
        return {}
    needed: dict[str, Tensor | None] = {"train": None, "validation": None, "test": None}
    if config.train_samples is not None:
        needed["train"] = torch.cat([*windows.passes, windows.timing]).unique()
        del needed["test"]
    if config.val_samples is not None:
        needed["validation"] = windows.validation
    whole = [name for name, indices in needed.items() if indices is None]
    as_needed = made_as_needed(config, data, whole) if makes_as_needed else set()
    prompts: dict[str, PromptTokens | PromptsAsNeeded] = {}
    for name, indices in needed.items():
        split = data.split(name)
        named: dict[str, Any] = {
            "split_name": name, "data_checksum": data.checksum, "description": data.description,
        }  # fmt: skip
        if name in as_needed:
            check = functools.partial(check_positions, config, source)
            prompts[name] = prompts_as_needed(config, split, tokenizer, **named, check_length=check)
        else:
            prompts[name] = tokenized_prompts(config, split, tokenizer, **named, indices=indices)
    return prompts


def _known(prompts: dict[str, PromptTokens | PromptsAsNeeded]) -> list[PromptTokens]:
    """Those of the prompts that are all known."""
    return [part for part in prompts.values() if isinstance(part, PromptTokens)]


def _build_store(
    config: RunConfig, data: SeriesData, windows: Windows, model: TimeLLM, tokens: int, device: torch.device
) -> PromptStore | None:
    if config.prompt_prefix != "store":
        return None
    per_channel = data.train.windows_per_channel if config.prompt_scope == "span" else None
    seen = [windows.passes[0]] if config.train_samples is None else windows.passes  # every epoch has the same windows
    used = torch.cat([*seen, windows.timing]) % (per_channel or len(data.train))
    prompts = per_channel or len(data.train)
    return PromptStore(model, prompts, used.unique(), tokens, config.prompt_store_gib, device, per_channel)


def _shared_prefix(
    config: RunConfig, prompts: dict[str, PromptTokens | PromptsAsNeeded], description: str, tokenizer: Any | None
) -> tuple[Tensor | None, int]:
    """The tokens that every prompt of the run starts with, where they are kept, and the longest prompt's length.

    With a tokenizer, no more of them than all prompts of the data set start with, so that runs on other windows of it
    keep the same.
    """
    if not prompts:
        return None, 0
    tokens = list(prompts.values())
    longest = max(part.longest for part in tokens)
    if config.prompt_prefix == "recompute":
        return None, longest
    firsts = [part.prefix for part in tokens]
    if tokenizer is not None:
        firsts.append(torch.tensor(fixed_prefix(config, tokenizer, description), dtype=torch.int64))
    length = min(len(first) for first in firsts)
    while any(not torch.equal(first[:length], firsts[0][:length]) for first in firsts):
        length -= 1
    return firsts[0][:length], longest
