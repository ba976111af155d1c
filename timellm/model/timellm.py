"""Time-LLM: patches, reprogrammed as words, read by a frozen language model (Jin et al., arXiv 2310.01728)."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from timellm.contract.config import RunConfig
from timellm.model import one_pass
from timellm.model.checkpointing import RunBlock, checkpoint_on_device, checkpoint_on_host, run_as_it_is
from timellm.model.copies import joined_copies
from timellm.model.frozen import frozen_blocks
from timellm.model.layers import FlattenHead, PatchEmbedding, ReprogrammingLayer, normalize_window, restore_scale
from timellm.model.mapping import MappingLayer, with_room
from timellm.model.parts import part
from timellm.model.reuse import PromptMemory, read_patches, remember
from timellm.model.rounding import RoundedProducts
from timellm.model.wavelet_embedding import WaveletPatchEmbedding

CAUSAL = ("gpt2", "llama")
"""Backbone types whose prompt does not see the patches, so that its keys and values can be reused."""

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Compute types by the name of their precision."""


@dataclass(frozen=True)
class PromptBatch:
    """Prompt tokens of a batch.

    Attributes:
        ids: Token ids, right-padded [windows, tokens]: the whole prompt, or what follows the prefix that the model
            was given with `keep_prefix`.
        lengths: Tokens of each row without padding [windows]; None attends to padding, as published.
        memory: Keys and values of the same tokens from a prompt store, instead of computing them.
    """

    ids: Tensor
    lengths: Tensor | None = None
    memory: PromptMemory | None = None


Prototypes = tuple[Tensor, Tensor]
"""Keys and values of the text prototypes, each [prototypes, n_heads, d_ff]."""


@dataclass(frozen=True)
class _Copies:
    """Trained weights in the type of the products; none where products take the weights themselves.

    Attributes:
        patches: Weight of the patch embedding; empty for that over wavelet bands.
        words: Weights and biases of the reprogramming layer's queries and output.
        head: Weight and bias of the head.
    """

    patches: tuple[Tensor, ...] = ()
    words: tuple[Tensor, ...] | None = None
    head: tuple[Tensor, ...] | None = None


class TimeLLM(nn.Module):
    """The published network; state-dict names are the published ones, so its checkpoints load.

    Args:
        config: The run's settings.
        llm_model: Frozen gpt2-, llama- or bert-type model, cut to the layers to use, in its compute type.
        keeps_on_host: Whether what gradient checkpointing keeps, the blocks' inputs, lies in host memory.
    """

    word_embeddings: nn.Parameter
    llm_model: Any

    def __init__(self, config: RunConfig, llm_model: PreTrainedModel, *, keeps_on_host: bool = False) -> None:
        super().__init__()
        self.config = config
        checkpoint = checkpoint_on_host if keeps_on_host else checkpoint_on_device
        self._checkpoint: RunBlock = functools.partial(checkpoint, draws=config.backbone_dropout)
        hidden = llm_model.config.hidden_size
        self.llm_model = llm_model
        self.word_embeddings = cast(nn.Parameter, llm_model.get_input_embeddings().weight)
        self.mapping_layer = MappingLayer(self.word_embeddings.shape[0], config.num_prototypes)
        self.patch_embedding = build_patch_embedding(config)
        self.reprogramming_layer = ReprogrammingLayer(
            config.d_model, config.n_heads, config.d_ff, hidden, is_half=config.is_half
        )
        self.output_projection = FlattenHead(config.d_ff * config.patches, config.pred_len, config.dropout)
        self._is_causal = llm_model.config.model_type in CAUSAL
        self._blocks: Any = frozen_blocks(llm_model, self.compute_dtype) if self._is_causal else None
        self._prefix: PromptMemory | None = None
        if config.tune_layer_norm:
            _unfreeze_norms(llm_model)
        if config.gradient_checkpointing and config.prompt_prefix == "recompute":
            _checkpoint_layers(llm_model, self._checkpoint)

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type that the operands of the backbone and of the large products have."""
        return DTYPES[self.config.precision]

    @property
    def product_dtype(self) -> torch.dtype:
        """Type that those products are computed in: fp32 where operands of the compute type are only rounded to it."""
        return torch.float32 if self._rounds_operands else self.compute_dtype

    @property
    def _rounds_operands(self) -> bool:
        """Whether the backbone holds values of the compute type in another; `recompute` leaves types to autocast."""
        return self.config.prompt_prefix != "recompute" and self.word_embeddings.dtype != self.compute_dtype

    def train(self, mode: bool = True) -> "TimeLLM":
        """Switch dropout of the trained parts; the frozen model's own stays off unless it is asked for."""
        super().train(mode)
        self.llm_model.train(mode and self.config.backbone_dropout)
        return self

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters that the optimizer sees."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def parameter_counts(self) -> tuple[int, int]:
        """Trainable and total parameters; the word embeddings count once."""
        trained = sum(parameter.numel() for _, parameter in self.trained_parameters())
        return trained, sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def keep_prefix(self, ids: Tensor) -> None:
        """Compute the keys and values of the tokens [tokens] that all prompts start with, for the whole run.

        Later batches then hold only what follows them.
        """
        self._prefix = PromptMemory.of(self._remember(ids.unsqueeze(0), None).stack) if ids.numel() else None

    @torch.no_grad()
    def remember_prompt(self, ids: Tensor) -> PromptMemory:
        """Keys and values of prompt tokens [windows, tokens] that follow the kept prefix."""
        return self._remember(ids, self._prefix)

    def memory_shape(self, tokens: int) -> tuple[int, int, int, int]:
        """Layers, key and value heads, tokens and head dimension of a prompt's keys or values."""
        settings = self.llm_model.config
        heads = settings.num_attention_heads
        kv_heads = getattr(settings, "num_key_value_heads", None) or heads
        width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
        return self._blocks.count, kv_heads, tokens, width

    @torch.no_grad()
    def align_vocabulary(self) -> None:
        """Give the word embeddings room for the zeros that a GPU's kernels want after them."""
        self.word_embeddings.data = with_room(self.word_embeddings.data)

    def compile_forward(self) -> None:
        """Compile the forward pass, and with it the backward pass, for shapes that never change."""
        forward = compiled(self.forward, self.config, keeps_casts=self._rounds_operands)
        self.forward = forward  # type: ignore[method-assign]

    def prototypes(self) -> Prototypes:
        """Keys and values of the text prototypes: needed once per optimizer step, once per evaluation."""
        rounded_to = self.compute_dtype if self._rounds_operands else None
        with part("reprogramming"), self._outer_types(), self._types():
            joint, bias = None, None
            if self._copies_weights:
                groups = (*self.reprogramming_layer.joint_projection, (self.mapping_layer.bias,))
                weights, biases, bias = joined_copies(groups, self.compute_dtype)
                joint = weights, biases
            mapped = self.mapping_layer.prototypes(self.word_embeddings, rounded_to, bias)  # [prototypes, hidden]
            return self.reprogramming_layer.keys_values(mapped, joint)

    def prototype_parameters(self) -> list[nn.Parameter]:
        """What the prototypes' keys and values are made of, and nothing else."""
        layers = self.mapping_layer, self.reprogramming_layer.key_projection, self.reprogramming_layer.value_projection
        return [parameter for layer in layers for parameter in layer.parameters()]

    def forward(self, x: Tensor, prompt: PromptBatch, prototypes: Prototypes | None = None) -> Tensor:
        """Forecast windows.

        Args:
            x: Scaled windows of one channel each [windows, seq_len].
            prompt: Their prompts.
            prototypes: From `prototypes`, to share them between batches.

        Returns:
            Scaled forecasts [windows, pred_len], float32.
        """
        normed, mean, inverse_std = normalize_window(x.float())
        keys, values = prototypes if prototypes is not None else self.prototypes()
        with self._outer_types():
            with part("reprogramming"), self._types():
                copies = self._copies()
                embedded = self.patch_embedding(normed, *copies.patches)
                words = self.reprogramming_layer(embedded, keys, values, copies.words)  # [windows, patches, hidden]
            hidden = self.read(words, prompt)
            with part("head"), self._types():
                features = hidden if hidden.shape[-1] <= self.config.d_ff else hidden[..., : self.config.d_ff]
                forecast = self.output_projection(features, copies.head)
        return restore_scale(forecast, mean, inverse_std)

    def read(self, words: Tensor, prompt: PromptBatch) -> Tensor:
        """What the frozen language model makes of the words after their prompt, as `prompt_prefix` says."""
        if self.config.prompt_prefix == "recompute":
            return self._read_recomputed(words, prompt)
        is_checkpointed = self.config.gradient_checkpointing and torch.is_grad_enabled()
        if not is_checkpointed and one_pass.suits(self._blocks, self.config.attention, words.device):
            return self._read_in_one_pass(words, prompt)
        with part("prompt"):
            memory = self._prompt_memory(prompt)
        shared = self._prefix.tokens if self._prefix else 0
        with part("backbone"):
            return read_patches(
                self._blocks,
                words.to(self.word_embeddings.dtype),
                memory,
                None if prompt.lengths is None else prompt.lengths + shared,
                attention=self.config.attention,
                run_block=self._checkpoint if is_checkpointed else run_as_it_is,
            )

    def _read_in_one_pass(self, words: Tensor, prompt: PromptBatch) -> Tensor:
        """The patches' features that the head reads, of prompt and patches together."""
        own: Tensor | PromptMemory | None = None
        if prompt.ids.shape[1]:
            own = prompt.memory or F.embedding(prompt.ids, self.word_embeddings)
        with part("backbone"):
            return one_pass.read_window(
                self._blocks,
                words.to(self.word_embeddings.dtype),
                own,
                None if own is None else self._prefix,
                None if own is None else prompt.lengths,
                self.config.d_ff,
            )

    def _prompt_memory(self, prompt: PromptBatch) -> PromptMemory | None:
        if prompt.ids.shape[1] == 0:
            return None
        if prompt.memory is None:
            return self._remember(prompt.ids, self._prefix, is_joined=True)
        return self._prefix.followed_by(prompt.memory) if self._prefix else prompt.memory

    def _read_recomputed(self, words: Tensor, prompt: PromptBatch) -> Tensor:
        """The whole sequence through the transformers model, as published."""
        count = words.shape[1]
        stored = self.word_embeddings.dtype
        with part("prompt"):
            embeddings = torch.cat((F.embedding(prompt.ids, self.word_embeddings), words.to(stored)), dim=1)
        inputs: dict[str, Any] = {"inputs_embeds": embeddings}
        if prompt.lengths is not None:
            mask = torch.arange(prompt.ids.shape[1], device=words.device) < prompt.lengths.unsqueeze(1)
            mask = torch.cat((mask, mask.new_ones(mask.shape[0], count)), dim=1).long()
            inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        if self._is_causal:
            inputs["use_cache"] = False
        with part("backbone"), self._autocast(enabled=stored != self.compute_dtype):
            hidden = self.llm_model(**inputs).last_hidden_state
        return hidden[:, -count:]

    def _remember(self, ids: Tensor, prefix: PromptMemory | None, *, is_joined: bool = False) -> PromptMemory:
        embeddings = F.embedding(ids, self.word_embeddings)
        with self._outer_types():
            return remember(self._blocks, embeddings, prefix, self.config.attention, is_joined=is_joined)

    @property
    def _copies_weights(self) -> bool:
        """Whether the trained weights are cast at once, instead of by autocast or a compiler."""
        is_cast = self.config.is_half and not self._rounds_operands and self.config.prompt_prefix != "recompute"
        return is_cast and not torch.compiler.is_compiling()

    def _copies(self) -> "_Copies":
        """Copies of the weights that a forward pass reads beside the prototypes."""
        if not self._copies_weights:
            return _Copies()
        reprogramming, head = self.reprogramming_layer, self.output_projection.linear
        patches = self.patch_embedding
        own: list[Tensor] = [patches.value_embedding.tokenConv.weight] if isinstance(patches, PatchEmbedding) else []
        layers = (reprogramming.query_projection, reprogramming.out_projection, head)
        rest: list[Tensor] = [each for layer in layers for each in (layer.weight, layer.bias)]
        copies = joined_copies([(each,) for each in (*own, *rest)], self.compute_dtype)
        return _Copies(copies[: len(own)], copies[len(own) : len(own) + 4], copies[len(own) + 4 :])

    def _types(self) -> AbstractContextManager[Any]:
        """Operands of the compute type for the products of the trained parts."""
        return RoundedProducts(self.compute_dtype) if self._rounds_operands else self._autocast()

    def _outer_types(self) -> AbstractContextManager[Any]:
        """Keeps an engine's autocast away: what is to be cast is cast here, and some products are to run in fp32."""
        return self._autocast(enabled=False)

    def _autocast(self, *, enabled: bool = True) -> torch.autocast:
        on = enabled and self.config.is_half
        return torch.autocast(self.word_embeddings.device.type, dtype=self.compute_dtype if on else None, enabled=on)


def build_patch_embedding(config: RunConfig) -> nn.Module:
    """The patch embedding that the run asks for: plain, or over wavelet bands."""
    sizes = (config.patch_len, config.stride, config.d_model, config.dropout)
    if not config.use_swt:
        return PatchEmbedding(*sizes)
    return WaveletPatchEmbedding(
        *sizes, wavelet=config.swt_wavelet, level=config.swt_level, use_all_coeffs=config.use_all_coeffs
    )


def compiled(forward: Any, config: RunConfig, *, keeps_casts: bool = False) -> Any:
    """A forward pass compiled in the run's mode, for shapes that never change.

    Args:
        forward: What to compile.
        config: The run's settings.
        keeps_casts: Whether values that are cast to half precision and back are to be rounded; the compiler drops such
            pairs of casts by default.
    """
    if not keeps_casts:
        mode = None if config.compile_mode == "default" else config.compile_mode
        return torch.compile(forward, mode=mode, dynamic=False)
    from torch._inductor import list_mode_options

    options = {**list_mode_options(config.compile_mode), "emulate_precision_casts": True}
    return torch.compile(forward, options=options, dynamic=False)  # torch takes a mode or options, not both


def _unfreeze_norms(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if any(part in name.lower() for part in ("ln_", "norm")):
            parameter.requires_grad_(True)


def _checkpoint_layers(model: Any, run_block: RunBlock) -> None:
    """Recompute each layer in the backward pass; the models' own switch does nothing in eval mode."""
    layers = {"gpt2": lambda: model.h, "llama": lambda: model.layers, "bert": lambda: model.encoder.layer}
    for layer in layers[model.config.model_type]():
        layer.forward = functools.partial(run_block, layer.forward)
