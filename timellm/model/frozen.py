"""Lean forward passes over the blocks of a frozen causal language model.

The weights stay in the transformers model; these passes call them directly, so that keys and values of earlier
tokens can be handed in and handed out, and so that nothing is computed that no later token reads.

Between blocks, tokens stay in fp32 whatever the compute type is, as they do under autocast: a few hidden values are
thousands of times larger than the rest, and each block adds little to them. Where products of the compute type are
slow, the weights hold its values in fp32, and so do the operands that they meet here (see `timellm.model.rounding`).
"""

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from timellm.model import devices
from timellm.model.activations import gelu_tanh
from timellm.model.rotation import RotationTable, rotate

Rotary = tuple[Tensor, Tensor] | None
"""Cosine and sine of each position, in the order of the heads; None where positions are added to the input."""

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")
"""Names that transformers has for GELU by the tanh formula."""


class FrozenBlocks(ABC):
    """The blocks of one frozen decoder, by index.

    Args:
        compute_dtype: What operands of products are rounded to.

    Attributes:
        count: Number of blocks.
        groups: Query heads that share one key and value head.
        scales: Factor of the attention scores, per block.
    """

    count: int
    groups: int
    scales: list[float]

    def __init__(self, compute_dtype: torch.dtype) -> None:
        self._compute_dtype = compute_dtype
        self._in_fp32: dict[int, tuple[tuple[int, int], Tensor]] = {}

    def _fp32(self, weight: Tensor) -> Tensor:
        """A norm's weight in fp32, cast once: a step would cast it for every norm, a launch each."""
        if weight.dtype == torch.float32 or torch.compiler.is_compiling():
            return weight.float()
        state = (weight.data_ptr(), weight._version)
        known = self._in_fp32.get(id(weight))
        if known is None or known[0] != state:
            known = self._in_fp32[id(weight)] = (state, weight.detach().float())
        return known[1]

    def _operand(self, rows: Tensor, product_dtype: torch.dtype) -> Tensor:
        """Rows as a product takes them: rounded to the compute type, held in the type of the product."""
        return rows.to(self._compute_dtype).to(product_dtype)

    @abstractmethod
    def place(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Rotary]:
        """Tell tokens [rows, tokens, hidden] their positions [rows or 1, tokens]; returns them in fp32."""

    @abstractmethod
    def project(self, index: int, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [rows, heads, tokens, head_dim], keys and values [rows, kv_heads, tokens, head_dim]."""

    @abstractmethod
    def keys_values(self, index: int, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """As `project`, without the queries."""

    @abstractmethod
    def finish(self, index: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """The block's output, fp32, from its input [rows, tokens, hidden], fp32, and what its heads read."""

    @abstractmethod
    def final_norm(self, hidden: Tensor) -> Tensor:
        """The norm after the last block."""


class GPT2Blocks(FrozenBlocks):
    """Blocks of a transformers GPT2Model.

    Attributes:
        heads: Number of heads.
        inner_width: Width of the feed-forward network.
        has_tanh_gelu: Whether its activation is GELU by the tanh formula.
    """

    def __init__(self, model: PreTrainedModel, compute_dtype: torch.dtype) -> None:
        super().__init__(compute_dtype)
        self._model = cast(Any, model)
        self._blocks = self._model.h
        self.count = len(self._blocks)
        self.groups = 1
        self.scales = [block.attn.scaling for block in self._blocks]
        self.heads = model.config.num_attention_heads
        self.inner_width = self._blocks[0].mlp.c_fc.weight.shape[1]
        self.has_tanh_gelu = model.config.activation_function in TANH_GELU
        self._activation = _activation(model.config.activation_function)
        self._zeros: dict[tuple[int, ...], Tensor] = {}

    def place(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Rotary]:
        """Add learnt position embeddings."""
        return embeddings.float() + self._model.wpe.weight[positions].float(), None

    def project(self, index: int, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """One matrix product for all three."""
        block = self._blocks[index]
        normed = self._norm(block.ln_1, hidden)
        joint = self._operand(_conv1d(block.attn.c_attn, normed), normed.dtype)
        queries, keys, values = (_split_heads(part, self.heads) for part in joint.chunk(3, dim=-1))
        return queries, keys, values

    def keys_values(self, index: int, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """The last two thirds of the joint projection."""
        block, width = self._blocks[index], hidden.shape[-1]
        weight, bias = block.attn.c_attn.weight[:, width:], block.attn.c_attn.bias[width:]
        normed = self._norm(block.ln_1, hidden)
        joint = torch.addmm(bias, normed.flatten(0, 1), weight).view(*normed.shape[:2], -1)
        joint = self._operand(joint, normed.dtype)
        keys, values = (_split_heads(part, self.heads) for part in joint.chunk(2, dim=-1))
        return keys, values

    def finish(self, index: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """Output projection, then the feed-forward network, each added to its input."""
        block = self._blocks[index]
        dtype = block.attn.c_proj.weight.dtype
        hidden = _add_conv1d(hidden, block.attn.c_proj, self._operand(attended, dtype))
        inner = self._activation(_conv1d(block.mlp.c_fc, self._norm(block.ln_2, hidden)))
        return _add_conv1d(hidden, block.mlp.c_proj, self._operand(inner, dtype))

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Layer norm."""
        return self._norm(self.last_norm, hidden)

    @property
    def last_norm(self) -> Any:
        """The norm after the last block."""
        return self._model.ln_f

    def block(self, index: int) -> Any:
        """A block of the transformers model."""
        return self._blocks[index]

    def positions(self) -> Tensor:
        """The learnt position embeddings [positions, hidden], fp32."""
        return self._fp32(self._model.wpe.weight)

    def norm_weights(self, norm: Any) -> tuple[Tensor, Tensor]:
        """A norm's weight and bias, fp32."""
        return self._fp32(norm.weight), self._fp32(norm.bias)

    def zeros_for(self, shape: tuple[int, ...]) -> Tensor:
        """Zeros in fp32 whose first features a step may overwrite: they stay where they are for steps of this shape.

        A graph of such a step goes on to read them while steps of other shapes have zeros of their own.
        """
        device = self.last_norm.weight.device
        zeros = self._zeros.get(shape)
        if zeros is None or zeros.device != device:
            zeros = self._zeros[shape] = torch.zeros(shape, device=device)
        return zeros

    def _norm(self, norm: Any, hidden: Tensor) -> Tensor:
        """Normalised in fp32, returned as an operand."""
        normed = F.layer_norm(hidden, norm.normalized_shape, self._fp32(norm.weight), self._fp32(norm.bias), norm.eps)
        return self._operand(normed, norm.weight.dtype)


class LlamaBlocks(FrozenBlocks):
    """Blocks of a transformers LlamaModel: rotary positions, grouped heads, gated feed-forward network."""

    def __init__(self, model: PreTrainedModel, compute_dtype: torch.dtype) -> None:
        super().__init__(compute_dtype)
        self._model = cast(Any, model)
        self._blocks = self._model.layers
        self.count = len(self._blocks)
        self._heads = model.config.num_attention_heads
        self._kv_heads = model.config.num_key_value_heads
        self.groups = self._heads // self._kv_heads
        self.scales = [block.self_attn.scaling for block in self._blocks]
        self._activation = _activation(model.config.hidden_act)
        self._rotations = RotationTable(self._model.rotary_emb)
        self._joined: dict[int, Tensor] = {}
        has_biases = any("bias" in name for name, _ in self._blocks.named_parameters())
        self._can_join = self._rotations.suits and not has_biases

    def place(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Rotary]:
        """Compute the rotation of each position."""
        if self._joins(embeddings):
            return embeddings.float(), self._rotations.look_up(embeddings, positions)
        cosine, sine = self._model.rotary_emb(embeddings, positions)
        return embeddings.float(), (cosine.unsqueeze(1), sine.unsqueeze(1))

    def project(self, index: int, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Rotate queries and keys."""
        attention = self._blocks[index].self_attn
        normed = self._norm(self._blocks[index].input_layernorm, hidden)
        if self._joins(hidden):
            return self._project_at_once(attention, normed, rotary)
        queries = _rotate(_split_heads(attention.q_proj(normed), self._heads), rotary)
        return self._operand(queries, normed.dtype), *self._project_keys_values(attention, normed, rotary)

    def keys_values(self, index: int, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Keys are kept rotated: a position never changes."""
        block = self._blocks[index]
        normed = self._norm(block.input_layernorm, hidden)
        if self._joins(hidden):
            return self._project_at_once(block.self_attn, normed, rotary)[1:]
        return self._project_keys_values(block.self_attn, normed, rotary)

    def finish(self, index: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """Output projection, then the gated feed-forward network, each added to its input."""
        block = self._blocks[index]
        dtype = block.self_attn.o_proj.weight.dtype
        hidden = hidden + block.self_attn.o_proj(self._operand(attended, dtype))
        normed = self._norm(block.post_attention_layernorm, hidden)
        if self._joins(hidden):
            gate, up = F.linear(normed, self._joint(block.mlp.gate_proj, block.mlp.up_proj)).chunk(2, dim=-1)
        else:
            gate, up = block.mlp.gate_proj(normed), block.mlp.up_proj(normed)
        gated = self._activation(gate) * up
        return hidden + block.mlp.down_proj(self._operand(gated, dtype))

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Root-mean-square norm."""
        return self._norm(self._model.norm, hidden)

    def _joins(self, rows: Tensor) -> bool:
        """Whether products of the same operand are one: where each is a kernel to be launched."""
        return self._can_join and devices.launches_kernels(rows.device) and not torch.compiler.is_compiling()

    def _joint(self, *layers: Any) -> Tensor:
        """The weights of linear layers one after the other; the layers' own become views of it at no cost in memory."""
        first = layers[0].weight
        known = self._joined.get(id(layers[0]))
        if known is None or known.data_ptr() != first.data_ptr() or known.dtype != first.dtype:
            known = torch.cat([layer.weight.detach() for layer in layers])
            for layer, part in zip(layers, known.split([len(layer.weight) for layer in layers]), strict=True):
                layer.weight.data = part
            self._joined[id(layers[0])] = known
        return known

    def _project_at_once(self, attention: Any, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by one product; queries and keys are rotated together."""
        assert rotary is not None
        weight = self._joint(attention.q_proj, attention.k_proj, attention.v_proj)
        turning = self._heads + self._kv_heads
        heads = F.linear(normed, weight).view(*normed.shape[:2], turning + self._kv_heads, -1)
        turned, values = heads.split([turning, self._kv_heads], dim=2)
        queries, keys = rotate(turned, *rotary).split([self._heads, self._kv_heads], dim=2)
        parts = (self._operand(part, normed.dtype).transpose(1, 2) for part in (queries, keys, values))
        queries, keys, values = parts
        return queries, keys, values

    def _project_keys_values(self, attention: Any, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        keys = _rotate(_split_heads(attention.k_proj(normed), self._kv_heads), rotary)
        values = _split_heads(attention.v_proj(normed), self._kv_heads)
        return self._operand(keys, normed.dtype), self._operand(values, normed.dtype)

    def _norm(self, norm: Any, hidden: Tensor) -> Tensor:
        """Normalised in fp32, returned as an operand."""
        normed = F.rms_norm(hidden, (hidden.shape[-1],), self._fp32(norm.weight), norm.variance_epsilon)
        return self._operand(normed, norm.weight.dtype)


def frozen_blocks(model: PreTrainedModel, compute_dtype: torch.dtype) -> FrozenBlocks:
    """The lean passes for a gpt2- or llama-type model; operands are rounded to a compute type."""
    kinds = {"gpt2": GPT2Blocks, "llama": LlamaBlocks}
    return kinds[model.config.model_type](model, compute_dtype)


def _conv1d(layer: Any, rows: Tensor) -> Tensor:
    """A transformers Conv1D: its weight is [in, out]."""
    return torch.addmm(layer.bias, rows.flatten(0, -2), layer.weight).view(*rows.shape[:-1], -1)


def _add_conv1d(hidden: Tensor, layer: Any, rows: Tensor) -> Tensor:
    """What a Conv1D makes of rows, added to hidden; where types agree the matrix product adds as it goes."""
    if layer.weight.dtype != hidden.dtype:
        return hidden + _conv1d(layer, rows)
    total = hidden.flatten(0, -2) + layer.bias
    return total.addmm_(rows.flatten(0, -2), layer.weight).view(hidden.shape)


def _split_heads(rows: Tensor, heads: int) -> Tensor:
    """View [rows, tokens, heads*head_dim] as [rows, heads, tokens, head_dim]."""
    return rows.view(*rows.shape[:2], heads, -1).transpose(1, 2)


def _rotate(heads: Tensor, rotary: Rotary) -> Tensor:
    assert rotary is not None
    cosine, sine = rotary
    half = heads.shape[-1] // 2
    turned = torch.cat((-heads[..., half:], heads[..., :half]), dim=-1)
    return heads * cosine + turned * sine


def _activation(name: str) -> Any:
    """One kernel where transformers takes several."""
    from transformers.activations import ACT2FN

    if name in TANH_GELU:
        return gelu_tanh
    return F.silu if name == "silu" else ACT2FN[name]
