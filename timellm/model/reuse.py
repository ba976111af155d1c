"""Exact reuse of the frozen prompt: keys and values in, keys and values out.

A causal model's keys and values of the prompt depend on nothing that is trained. The tokens that all prompts share
are computed once, a window's own tokens without autograd, and only as far as the patch tokens read them; only the
patch tokens have a backward pass.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from timellm.model.checkpointing import RunBlock, run_as_it_is
from timellm.model.frozen import FrozenBlocks, Rotary

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PromptMemory:
    """Keys and values of prompt tokens, as the patch tokens read them.

    Attributes:
        keys: Per block [rows, kv_heads, tokens, head_dim]; rows is 1 for the shared prefix.
        values: As keys.
        whole: All of them in one tensor [2*blocks, rows, kv_heads, tokens, head_dim], keys first, where they lie so.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    whole: Tensor | None = None

    @classmethod
    def of(cls, whole: Tensor) -> "PromptMemory":
        """Keys and values that lie in one tensor, so that what is done to all of them is done at once."""
        blocks = whole.unbind(0)
        return cls(blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :], whole)

    @property
    def stack(self) -> Tensor:
        """All of them in one tensor, copied there if need be."""
        return torch.stack((*self.keys, *self.values)) if self.whole is None else self.whole

    @property
    def tokens(self) -> int:
        """Number of tokens, padding included."""
        return self.keys[0].shape[2]

    def followed_by(self, own: "PromptMemory") -> "PromptMemory":
        """This shared prefix in front of each row's own tokens."""
        if own.whole is None:
            return PromptMemory(tuple(map(_join, self.keys, own.keys)), tuple(map(_join, self.values, own.values)))
        prefix = self.stack.expand(-1, own.whole.shape[1], -1, -1, -1)
        return PromptMemory.of(torch.cat((prefix, own.whole), dim=3))

    def float(self) -> "PromptMemory":
        """The same in fp32."""
        if self.keys[0].dtype == torch.float32:
            return self
        if self.whole is not None:
            return PromptMemory.of(self.whole.float())
        return PromptMemory(tuple(k.float() for k in self.keys), tuple(v.float() for v in self.values))


@torch.no_grad()
def remember(
    blocks: FrozenBlocks,
    embeddings: Tensor,
    prefix: PromptMemory | None,
    attention: str,
    *,
    is_joined: bool = False,
) -> PromptMemory:
    """Keys and values of prompt tokens that follow a shared prefix.

    Right padding needs no mask here: a causal model's earlier tokens never see it. The last block stops at its keys
    and values, since nobody reads the prompt's own output.

    Args:
        blocks: The frozen model.
        embeddings: Word embeddings of the tokens [rows, tokens, hidden].
        prefix: Keys and values of the tokens before them, or None at the start of the prompt.
        attention: eager or sdpa.
        is_joined: Whether the prefix is returned too, in front of each row's own.

    Returns:
        The tokens' keys and values, after those of the prefix or without them.
    """
    tokens = embeddings.shape[1]
    before = prefix.tokens if prefix else 0
    positions = torch.arange(before, before + tokens, device=embeddings.device).unsqueeze(0)
    hidden, rotary = blocks.place(embeddings, positions)
    mask = causal_mask(before, tokens, embeddings.dtype, embeddings.device)
    kept: list[KeysValues] = []
    for index in range(blocks.count - 1):
        queries, keys, values = blocks.project(index, hidden, rotary)
        joined = _after_prefix(prefix, index, keys, values)
        kept.append(joined if is_joined else (keys, values))
        attended = _attend(queries, *joined, mask, blocks.scales[index], attention)
        hidden = blocks.finish(index, hidden, attended)
    last = blocks.count - 1
    own = blocks.keys_values(last, hidden, rotary)
    kept.append(_after_prefix(prefix, last, *own) if is_joined else own)
    all_keys, all_values = zip(*kept, strict=True)
    return PromptMemory(all_keys, all_values)


def _after_prefix(prefix: PromptMemory | None, index: int, keys: Tensor, values: Tensor) -> KeysValues:
    """A block's keys and values of rows, after those of the prefix if there is one."""
    if prefix is None:
        return keys, values
    return _join(prefix.keys[index], keys), _join(prefix.values[index], values)


def _join(shared: Tensor, own: Tensor) -> Tensor:
    """The tokens [1, kv_heads, tokens, head_dim] that all rows share, in front of each row's own."""
    return torch.cat((shared.expand(own.shape[0], -1, -1, -1), own), dim=2)


def read_patches(
    blocks: FrozenBlocks,
    patches: Tensor,
    memory: PromptMemory | None,
    lengths: Tensor | None,
    *,
    attention: str,
    run_block: RunBlock = run_as_it_is,
) -> Tensor:
    """Run the patch tokens, which follow the prompt, through the frozen model with autograd.

    Args:
        blocks: The frozen model.
        patches: Reprogrammed patches [rows, patches, hidden].
        memory: Keys and values of the whole prompt, right-padded; None for no prompt.
        lengths: Prompt tokens of each row without padding [rows]; None attends to the padding, as published.
        attention: eager or sdpa.
        run_block: Calls each block, to recompute its activations in the backward pass or not.

    Returns:
        Hidden states after the final norm [rows, patches, hidden].
    """
    count, tokens = patches.shape[1], memory.tokens if memory else 0
    steps = torch.arange(count, device=patches.device).unsqueeze(0)
    positions = steps + (tokens if lengths is None else lengths.unsqueeze(1))
    hidden, rotary = blocks.place(patches, positions)
    in_parts = attention != "sdpa" and memory is not None
    if in_parts and memory is not None:
        memory = memory.float()
    mask = _mask_of_patches(tokens, count, lengths, torch.float32 if in_parts else patches.dtype, patches.device)
    for index in range(blocks.count):
        past = (memory.keys[index], memory.values[index]) if memory else None
        hidden = run_block(_patch_block, blocks, index, hidden, rotary, past, mask, attention)
    return blocks.final_norm(hidden)


def _patch_block(
    blocks: FrozenBlocks,
    index: int,
    hidden: Tensor,
    rotary: Rotary,
    past: tuple[Tensor, Tensor] | None,
    mask: Tensor,
    attention: str,
) -> Tensor:
    queries, keys, values = blocks.project(index, hidden, rotary)
    scale = blocks.scales[index]
    if past is None:
        attended = _attend(queries, keys, values, mask, scale, attention)
    elif attention == "sdpa":
        keys, values = torch.cat((past[0], keys), dim=2), torch.cat((past[1], values), dim=2)
        attended = _attend(queries, keys, values, mask, scale, attention)
    else:
        attended = attend_in_parts(queries, keys, values, past, mask, scale)
    return blocks.finish(index, hidden, attended)


def _mask_of_patches(
    tokens: int, patches: int, lengths: Tensor | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """What is added to the patches' scores [rows or 1, 1, patches, keys]: 0 for a row's prompt and earlier patches."""
    causal = causal_mask(tokens, patches, dtype, device)
    if lengths is None:
        return causal
    is_padding = _places_in_prompt(tokens, patches, device) >= lengths.view(-1, 1, 1, 1)
    return causal.masked_fill(is_padding, float("-inf"))


def causal_mask(before: int, tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to scores [1, 1, tokens, before + tokens]: 0 where a key is visible, minus infinity elsewhere."""
    return (_new_causal_mask if torch.compiler.is_compiling() else _kept_causal_mask)(before, tokens, dtype, device)


def _new_causal_mask(before: int, tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    visible = torch.ones(tokens, before + tokens, dtype=torch.bool, device=device).tril(before)
    mask = torch.zeros(tokens, -(-(before + tokens) // 8) * 8, dtype=dtype, device=device)[:, : before + tokens]
    return mask.masked_fill_(~visible, float("-inf"))[None, None]  # a GPU's kernels copy rows that are not aligned


_kept_causal_mask = functools.lru_cache(maxsize=64)(_new_causal_mask)


def _places_in_prompt(tokens: int, patches: int, device: torch.device) -> Tensor:
    """Place of each key in the prompt [tokens + patches]; below every length for patches, which are always visible."""
    return (_new_places if torch.compiler.is_compiling() else _kept_places)(tokens, patches, device)


def _new_places(tokens: int, patches: int, device: torch.device) -> Tensor:
    return torch.cat((torch.arange(tokens, device=device), torch.full((patches,), -1, device=device)))


_kept_places = functools.lru_cache(maxsize=64)(_new_places)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, attention: str) -> Tensor:
    """Masked attention [rows, tokens, heads*head_dim]; grouped heads share keys and values."""
    groups = queries.shape[1] // keys.shape[1]
    if attention == "sdpa":
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=groups > 1
        )
    else:
        keys, values = _repeat(keys, groups), _repeat(values, groups)
        each = mask if mask.shape[0] == 1 else mask.expand(-1, queries.shape[1], -1, -1)
        scores = torch.baddbmm(
            each.flatten(0, 1), queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=scale
        )  # [rows*heads, tokens, keys]
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
        mixed = (weights @ values.flatten(0, 1)).view(queries.shape)
    return mixed.transpose(1, 2).flatten(2)


def attend_in_parts(
    queries: Tensor, keys: Tensor, values: Tensor, past: tuple[Tensor, Tensor], mask: Tensor, scale: float
) -> Tensor:
    """As `_attend` over past keys, in fp32, and present ones: no backward pass into the past, no joint copy.

    In fp32 whatever the compute type is (`TimeLLM` keeps autocast away): the few products cost little, and in bf16
    their rounding alone doubles the error of the gradients.
    """
    compute_dtype = queries.dtype
    queries, keys, values = queries.float() * scale, keys.float(), values.float()
    rows, heads, count, width = queries.shape
    kv_heads, tokens = past[0].shape[1], past[0].shape[2]
    grouped = queries.reshape(rows, kv_heads, -1, width)  # [rows, kv_heads, groups*patches, head_dim]
    scores = torch.cat((grouped @ past[0].transpose(2, 3), grouped @ keys.transpose(2, 3)), dim=3)
    weights = torch.softmax(scores.add_(mask.repeat(1, 1, heads // kv_heads, 1)), dim=-1)
    mixed = weights[..., :tokens] @ past[1] + weights[..., tokens:] @ values
    return mixed.view(rows, heads, count, width).transpose(1, 2).flatten(2).to(compute_dtype)


def _repeat(heads: Tensor, groups: int) -> Tensor:
    return heads if groups == 1 else heads.repeat_interleave(groups, dim=1)
