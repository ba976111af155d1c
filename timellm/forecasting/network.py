"""A trained network with its prompts: windows in, forecasts out, in a stream."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timellm.backbones import BackboneSource, check_backbone, load_tokenizer, resolve_backbone
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import Split
from timellm.machine.environment import choose_device
from timellm.model.control import PatchAttention
from timellm.model.timellm import CAUSAL
from timellm.prompts import tokenized_windows
from timellm.run.batches import Batch, WindowBatches, micro_batches
from timellm.run.facts import Facts
from timellm.run.preparation import build_network

BATCH = 64
"""Windows per forward pass, where the way of the training does not decide it."""

WINDOWS_PER_CHUNK = 2048
"""Windows whose prompts are held at once, about."""

_IDLE = {
    "compile_mode": "off", "num_workers": 0, "offload_optimizer": "off", "deepspeed_config": None,
    "gradient_checkpointing": False, "backbone_dropout": False, "train_samples": None, "val_samples": None,
}  # fmt: skip
"""Settings of a training that play no part in a forecast."""


class ForecastNetwork:
    """Forecasts windows with trained parameters.

    Args:
        config: Settings of the training.
        facts: What it knew of its data and language model.
        as_trained: Compute exactly as the training's own test pass: its path, batch and number formats. Otherwise the
            fastest path with the same numbers up to rounding.

    Raises:
        InputError: If the language model is not the one that was trained with, or the device lacks a number format.
    """

    def __init__(self, config: RunConfig, facts: Facts, *, as_trained: bool = False) -> None:
        self.device = choose_device(config)
        self.source = None if config.has_no_backbone else found_backbone(config, facts)
        self.config = config if as_trained else fastest_exact(config, self.source)
        self.facts, self._as_trained = facts, as_trained
        self.network = self._build()
        self._tokenizer = load_tokenizer(self.source) if self.source and config.prompt != "none" else None
        self._prefix = facts.prefix if self._keeps_prefix else ()
        self._is_prefix_kept = False
        self._prototypes: Any = None

    @property
    def batch_size(self) -> int:
        """Windows per forward pass."""
        if self._as_trained or self._sees_neighbours:
            return self.config.evaluation_batch
        return max(BATCH, self.config.batch_size)

    @property
    def _sees_neighbours(self) -> bool:
        """Whether a forecast depends on what it shares its batch with."""
        return self.config.prompt_padding == "published" and self._tokenizer is not None

    @property
    def _keeps_prefix(self) -> bool:
        return self.config.prompt_prefix != "recompute"

    @property
    def _has_one_shape(self) -> bool:
        return self._as_trained and self.config.compile_mode != "off"

    def _build(self) -> Any:
        if self.source is None:
            network: Any = PatchAttention(self.config).to(self.device)
        else:
            network = build_network(self.config, self.source, self.device)
        if self._has_one_shape:
            network.compile_forward()
        return network.requires_grad_(True).eval() if self.source is None else network.eval()

    @torch.no_grad()
    def forecasts(self, split: Split, windows: Tensor) -> Iterator[tuple[Batch, Tensor]]:
        """Forecast windows in order, as they come.

        Args:
            split: Scaled values; what lies after a window's input may be missing.
            windows: Numbers of the windows in the split, increasing [windows].

        Yields:
            Each batch with its scaled forecasts [windows, pred_len], float32.
        """
        size = self.batch_size
        shares_prototypes = not self._as_trained or self._keeps_prefix
        if shares_prototypes and self.source is not None and self._prototypes is None:
            self._prototypes = self.network.prototypes()
        for chunk in windows.split(max(1, WINDOWS_PER_CHUNK // size) * size):
            for batch in self._batches(split, chunk, size):
                forecast = self.network(batch.x, batch.prompt, self._prototypes if shares_prototypes else None)
                yield batch, forecast[: len(batch.y)]

    def _batches(self, split: Split, chunk: Tensor, size: int) -> Iterator[Batch]:
        prompts, width = None, None
        if self._tokenizer is not None:
            prompts = tokenized_windows(
                self.config, split, self._tokenizer, description=self.facts.description, indices=chunk
            )
            if self._keeps_prefix:
                self._keep_prefix(prompts.ids, prompts.lengths)
            self._check_positions(int(prompts.lengths.max()))
            if self._as_trained and (self._has_one_shape or self.config.prompt_prefix == "store"):
                width = max(self.facts.longest_prompt, int(prompts.lengths.max()))
        rows = size if self._has_one_shape else None
        cutter = WindowBatches(self.config, split, prompts, len(self._prefix), self.device, width, rows)
        yield from cutter(micro_batches(chunk, size))

    def _keep_prefix(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        """Keep the tokens that these prompts share with the training's, and all earlier ones of this network."""
        known = self._prefix if self._prefix or self._is_prefix_kept else tuple(ids[0].tolist())
        length = min(len(known), int(lengths.min()) - 1)
        differs = (ids[:, :length] != np.asarray(known[:length], dtype=np.int64)).any(axis=0)
        length = int(differs.argmax()) if differs.any() else length
        if self._is_prefix_kept and length == len(self._prefix):
            return
        self._prefix, self._is_prefix_kept = tuple(known[:length]), True
        self.network.keep_prefix(torch.tensor(self._prefix, dtype=torch.int64, device=self.device))

    def _check_positions(self, prompt_tokens: int) -> None:
        assert self.source is not None
        tokens = prompt_tokens + self.config.patches
        if tokens > self.source.max_positions:
            raise InputError(
                f"{self.source.name} reads at most {self.source.max_positions} tokens, got {prompt_tokens} of a prompt "
                f"and {self.config.patches} patches. Values of the history are too long to write."
            )


def found_backbone(config: RunConfig, facts: Facts) -> BackboneSource:
    """The language model that a checkpoint was trained with.

    Raises:
        InputError: If it is not here, or another is.
    """
    source = resolve_backbone(config.llm_model, config.llm_path, config.llm_weights)
    trained = facts.backbone.get("checksum")
    if trained is not None and source.checksum != trained:
        raise InputError(
            f"The language model must be the {facts.backbone.get('label')} that the checkpoint was trained with "
            f"(sha256 {str(trained)[:12]}), got {source.label} ({str(source.checksum)[:12]}) in {source.folder}. "
            "Name the folder of the right one with --llm_path."
        )
    check_backbone(config, source)
    return source


def fastest_exact(config: RunConfig, source: BackboneSource | None) -> RunConfig:
    """Settings that forecast the same numbers up to rounding, faster where that is exact.

    In half precision, and where the language model's norms were trained, the training's own path is kept.
    """
    settings: dict[str, Any] = dict(_IDLE)
    is_exact = config.precision == "fp32" and not config.tune_layer_norm
    if source is not None and source.kind in CAUSAL and is_exact:
        settings["prompt_prefix"] = "reuse"
    return config.replace(**settings)
