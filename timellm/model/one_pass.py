"""A window's own prompt and its patches in one pass over the frozen blocks, for devices that launch kernels.

The numbers are those of `timellm.model.reuse`, which computes the prompt first and the patches after it. Here each
operation of a block works on both, and the backward pass is written out, on the patches alone. A step then launches
about two thirds of the kernels:

- Tokens lie by place, [tokens, rows, hidden]. The patches come last, so that they are one piece of memory, of which
  the backward pass keeps nothing but them (`_Shelf`).
- A block's queries, keys and values of all tokens lie in one tensor, [tokens, rows, 3 * hidden], after the keys and
  values that are known already. The matrix product writes them there.
- Between blocks gradients are in fp32, as under autocast; between the halves of a block they are rounded to the type
  of the products that read them.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from timellm.model import devices
from timellm.model.frozen import FrozenBlocks, GPT2Blocks
from timellm.model.reuse import PromptMemory, causal_mask

LARGEST_MASKS_BYTES = 2**26
"""Size up to which the masks of all prompt lengths are held."""


def suits(blocks: FrozenBlocks, attention: str, device: torch.device) -> bool:
    """Whether a device takes windows through these blocks in one pass; compiled code has few kernels anyway."""
    is_known = isinstance(blocks, GPT2Blocks) and blocks.has_tanh_gelu
    is_plain = not torch.compiler.is_compiling()
    return is_known and attention == "sdpa" and is_plain and devices.launches_kernels(device)


def read_window(
    blocks: GPT2Blocks,
    words: Tensor,
    prompt: Tensor | PromptMemory | None,
    prefix: PromptMemory | None,
    lengths: Tensor | None,
    features: int,
) -> Tensor:
    """Run prompt and patches through the frozen model, the patches with autograd.

    Args:
        blocks: The frozen model.
        words: Reprogrammed patches [rows, patches, hidden].
        prompt: Word embeddings of each row's own prompt [rows, tokens, hidden], right-padded; or its keys and values,
            if they are known; None for no prompt.
        prefix: Keys and values of the tokens before it, which all rows share; None if there are none.
        lengths: Prompt tokens of each row after the prefix, without padding [rows]; None attends to the padding.
        features: Leading features to return.

    Returns:
        These features of the patches after the final norm [rows, patches, features].
    """
    keeps = torch.is_grad_enabled() and words.requires_grad
    one_pass = _Pass(blocks, words, prompt, prefix, lengths, features, keeps=keeps)
    read = _ReadWindow.apply(words, one_pass) if keeps else one_pass.forward(words)
    return read.transpose(1, 2)


class _ReadWindow(torch.autograd.Function):
    """`_Pass` as a function of the words."""

    @staticmethod
    def forward(ctx: Any, words: Tensor, one_pass: "_Pass") -> Tensor:
        ctx.one_pass = one_pass
        return one_pass.forward(words)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        with torch.autocast(grad.device.type, enabled=False):
            return ctx.one_pass.backward(grad), None


class _Shelf:
    """Memory of tensors [tokens, rows, features], of which the patches, last, are kept, and the prompt's tokens not.

    The patches of each tensor lie right before those of the tensor before it, so that a tensor's prompt takes the
    place that the patches of later ones will have.

    Args:
        like: Gives device and type.
        count: Tensors that will be taken; 0 keeps nothing, and each has memory of its own.
        shape: Tokens, patches among them, rows and features.
    """

    def __init__(self, like: Tensor, count: int, shape: tuple[int, int, int, int]) -> None:
        self._like, self._taken, self._shape = like, 0, shape
        tokens, patches, *rest = shape
        self._memory = like.new_empty((tokens + patches * (count - 1), *rest)) if count else None

    def take(self, tokens: int) -> Tensor:
        """Memory for that many tokens."""
        _, patches, *rest = self._shape
        if self._memory is None:
            return self._like.new_empty((tokens, *rest))
        end = len(self._memory) - patches * self._taken
        self._taken += 1
        return self._memory[end - tokens : end]


class _Pass:
    """One pass, and what its backward pass needs. The arguments are those of `read_window`."""

    def __init__(
        self,
        blocks: GPT2Blocks,
        words: Tensor,
        prompt: Tensor | PromptMemory | None,
        prefix: PromptMemory | None,
        lengths: Tensor | None,
        features: int,
        *,
        keeps: bool,
    ) -> None:
        self._blocks, self._lengths, self._features, self._keeps = blocks, lengths, features, keeps
        self._rows, self._patches, self._width = words.shape
        self._embeddings = None if isinstance(prompt, PromptMemory) else prompt
        self._earlier = [memory for memory in (prefix, prompt) if isinstance(memory, PromptMemory)]
        self._known = sum(memory.tokens for memory in self._earlier)
        self._shared = prefix.tokens if prefix else 0
        self._own = 0 if self._embeddings is None else self._embeddings.shape[1]
        self._total = self._known + self._own + self._patches
        self._kept: list[tuple[Any, ...]] = []
        self._rooms: Tensor | None = None

    def forward(self, words: Tensor) -> Tensor:
        """The features, after the final norm, of all patches [rows, features, patches], in the type of the words."""
        self._make_memory(words)
        hidden = self._placed(words)
        mask = self._mask_of_patches(words)
        for index in range(self._blocks.count):
            hidden = self._second_half(index, *self._first_half(index, hidden, mask))
        self._rooms = None  # the blocks' own views of it are what the backward pass needs
        last = hidden[-self._patches :]
        normed, *statistics = self._normed(self._blocks.last_norm, last)
        self._last = (last, *statistics)
        read = words.new_empty(self._rows, min(self._features, self._width), self._patches)
        return read.copy_(normed[..., : self._features].permute(1, 2, 0))

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient of the words [rows, patches, hidden] from that of the features [rows, features, patches]."""
        spread = self._blocks.zeros_for((self._patches, self._rows, self._width))
        spread[..., : grad.shape[1]].copy_(grad.permute(2, 0, 1))
        total = self._through_norm(self._blocks.last_norm, spread, *self._last)
        for index in reversed(range(self._blocks.count)):
            hidden, attention, middle, inner = self._kept.pop()
            between = self._back_from_middle(index, total, middle, inner, attention[0])
            total = self._back_to_start(index, between, hidden, attention)
        return self._by_row(total, grad.dtype)

    def _make_memory(self, words: Tensor) -> None:
        """Room for what the blocks hand on, and for keys and values with those that are known."""
        count = self._blocks.count if self._keeps else 0
        tokens = (self._own + self._patches, self._patches, self._rows)
        wide = words.new_empty(0, dtype=torch.float32)
        self._outs = _Shelf(wide, count + 1 if count else 0, (*tokens, self._width))
        self._middles = _Shelf(wide, count, (*tokens, self._width))
        self._inners = _Shelf(words, count, (*tokens, self._blocks.inner_width))
        if not self._keeps:
            return
        heads, layers = self._blocks.heads, self._blocks.count
        rooms = words.new_empty(layers, self._total, self._rows, 3, heads, self._width // heads)
        at = 0
        for memory in self._earlier:
            each = memory.stack.unflatten(0, (2, layers)).permute(
                1, 4, 2, 0, 3, 5
            )  # [layers, tokens, rows or 1, 2, ...
            rooms[:, at : at + memory.tokens, :, 1:].copy_(each)
            at += memory.tokens
        self._rooms = rooms

    def _room(self, index: int, like: Tensor) -> Tensor:
        """A block's queries, keys and values [tokens, rows, 3, heads, head_dim], of which the known ones are there."""
        if self._rooms is not None:
            return self._rooms[index].data  # autograd is not to take a block's writes for changes of another's
        heads = self._blocks.heads
        room = like.new_empty(self._total, self._rows, 3, heads, self._width // heads)
        at = 0
        for memory in self._earlier:
            for place, each in ((1, memory.keys[index]), (2, memory.values[index])):
                room[at : at + memory.tokens, :, place].copy_(each.permute(2, 0, 1, 3))
            at += memory.tokens
        return room

    def _placed(self, words: Tensor) -> Tensor:
        """All tokens that are computed, with their positions [tokens, rows, hidden], fp32."""
        table = self._blocks.positions()
        hidden = self._outs.take(self._own + self._patches)
        if self._embeddings is not None:
            at = table[self._known : self._known + self._own].unsqueeze(1)
            torch.add(self._embeddings.transpose(0, 1), at, out=hidden[: self._own])
        if self._lengths is None:
            first = self._known + self._own
            at = table[first : first + self._patches].unsqueeze(1)
        else:
            runs = table.unfold(0, self._patches, 1)[self._shared :]  # [starts, hidden, patches]
            at = runs.transpose(1, 2).index_select(0, self._lengths).transpose(0, 1)
        torch.add(words.transpose(0, 1), at, out=hidden[self._own :])
        return hidden

    def _mask_of_patches(self, words: Tensor) -> Tensor:
        """What is added to the patches' scores [rows or 1, 1, patches, keys]."""
        before = self._total - self._patches
        if self._lengths is None:
            return causal_mask(before, self._patches, words.dtype, words.device)
        own = before - self._shared
        size = (own + 1) * self._patches * self._total * words.element_size()
        if size <= LARGEST_MASKS_BYTES:
            masks = _masks_by_length(self._shared, own, self._patches, words.dtype, words.device)
            return masks.index_select(0, self._lengths)[..., : self._total]
        return _masks_of(self._lengths, self._shared, own, self._patches, words.dtype)[..., : self._total]

    def _first_half(self, index: int, hidden: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """The attention of a block, added to its input; and what its backward pass needs.

        The last block's prompt stops at its keys and values: nobody reads more of it.
        """
        layer = self._blocks.block(index).attn
        normed, mean, rstd = self._normed(self._blocks.block(index).ln_1, hidden)
        operand = normed.to(layer.c_attn.weight.dtype)
        room = self._room(index, operand)
        product = room[self._known :].view(-1, 3 * self._width)
        torch.addmm(layer.c_attn.bias, operand.view(-1, self._width), layer.c_attn.weight, out=product)
        queries, keys, values = (room[:, :, part].permute(1, 2, 0, 3) for part in range(3))
        scale, own = self._blocks.scales[index], self._own
        read, attention = self._attend(queries[:, :, -self._patches :], keys, values, mask, scale)
        if own and index < self._blocks.count - 1:
            before = F.scaled_dot_product_attention(
                queries[:, :, self._known : -self._patches],
                keys[:, :, : -self._patches],
                values[:, :, : -self._patches],
                attn_mask=causal_mask(self._known, own, operand.dtype, operand.device),
                scale=scale,
            )
            joined = torch.cat((before.permute(2, 0, 1, 3), read.permute(2, 0, 1, 3)))
            added = _conv1d(layer.c_proj, joined.view(-1, self._width)).view(hidden.shape)
        else:
            hidden = hidden[-self._patches :]
            product = _conv1d(layer.c_proj, _in_its_order(read).reshape(-1, self._width))
            added = self._by_place(product, read)
        middle = torch.add(hidden, added, out=self._middles.take(len(hidden)))
        kept = (hidden[-self._patches :], mean[-self._patches :], rstd[-self._patches :])
        return middle, (kept, attention)

    def _second_half(self, index: int, middle: Tensor, kept: tuple[Any, ...]) -> Tensor:
        """The feed-forward network of a block, added to its input."""
        layer = self._blocks.block(index).mlp
        normed, mean, rstd = self._normed(self._blocks.block(index).ln_2, middle)
        operand = normed.to(layer.c_fc.weight.dtype).view(-1, self._width)
        inner = self._inners.take(len(middle))
        torch.addmm(layer.c_fc.bias, operand, layer.c_fc.weight, out=inner.view(-1, inner.shape[-1]))
        active = F.gelu(inner, approximate="tanh").view(-1, inner.shape[-1])
        added = _conv1d(layer.c_proj, active).view(middle.shape)
        if self._keeps:
            last = slice(-self._patches, None)
            self._kept.append((*kept, (middle[last], mean[last], rstd[last]), inner[last]))
        return torch.add(middle, added, out=self._outs.take(len(middle)))

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """What the patches' heads read [rows, heads, patches, head_dim], and its own small graph."""
        with torch.set_grad_enabled(self._keeps):
            query, key, value = (part.detach().requires_grad_(self._keeps) for part in (queries, keys, values))
            read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        return read.detach(), (read, (query, key, value))

    def _back_from_middle(
        self, index: int, total: Tensor, middle: tuple[Tensor, ...], inner: Tensor, read: Tensor
    ) -> Tensor:
        """Gradient between the halves [patches, rows, hidden], from that of the output.

        It has the type of the products, and the order in memory of what the heads read.
        """
        block = self._blocks.block(index)
        grad = torch.mm(total.to(read.dtype).view(-1, self._width), block.mlp.c_proj.weight.t())
        grad = torch.ops.aten.gelu_backward(grad, inner.view(grad.shape), approximate="tanh")
        grad = devices.product_in_fp32(grad, block.mlp.c_fc.weight.t()).view(total.shape)
        grad = self._through_norm(block.ln_2, grad, *middle)
        between = self._by_place(read.new_empty(read.numel() // self._width, self._width), read)
        return torch.add(total, grad, out=between)

    def _back_to_start(
        self, index: int, between: Tensor, hidden: tuple[Tensor, ...], attention: tuple[Any, ...]
    ) -> Tensor:
        """Gradient of a block's input [patches, rows, hidden], fp32."""
        block, (read, leaves) = self._blocks.block(index), attention
        in_order = between if _is_by_place(read) else between.transpose(0, 1)
        product = torch.mm(in_order.view(-1, self._width), block.attn.c_proj.weight.t())
        grad = self._by_place(product, read).unflatten(2, (self._blocks.heads, -1))
        parts = torch.autograd.grad(read, leaves, grad.permute(1, 2, 0, 3))
        joint = torch.cat([part[:, :, -self._patches :].permute(2, 0, 1, 3) for part in parts], dim=2)
        grad = devices.product_in_fp32(joint.view(-1, 3 * self._width), block.attn.c_attn.weight.t())
        grad = self._through_norm(block.ln_1, grad.view(self._patches, self._rows, -1), *hidden)
        return torch.add(grad, between)

    def _by_place(self, product: Tensor, read: Tensor) -> Tensor:
        """View rows [..., hidden], in the order of what the heads read, as [patches, rows, hidden]."""
        if _is_by_place(read):
            return product.view(self._patches, self._rows, self._width)
        return product.view(self._rows, self._patches, self._width).transpose(0, 1)

    def _normed(self, norm: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised in fp32, and mean and one over the deviation of each token."""
        weight, bias = self._blocks.norm_weights(norm)
        return torch.native_layer_norm(hidden, norm.normalized_shape, weight, bias, norm.eps)

    def _through_norm(self, norm: Any, grad: Tensor, hidden: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """Gradient of a norm's input."""
        weight, bias = self._blocks.norm_weights(norm)
        only_input = [True, False, False]
        shape = norm.normalized_shape
        return torch.ops.aten.native_layer_norm_backward(grad, hidden, shape, mean, rstd, weight, bias, only_input)[0]

    def _by_row(self, grad: Tensor, dtype: torch.dtype) -> Tensor:
        by_row = torch.empty(self._rows, self._patches, self._width, dtype=dtype, device=grad.device)
        return by_row.copy_(grad.transpose(0, 1))


def _is_by_place(read: Tensor) -> bool:
    """Whether a kernel wrote what the heads read [rows, heads, patches, head_dim] in the order of its queries.

    Some do, others write row by row; neither is copied.
    """
    return read.permute(2, 0, 1, 3).is_contiguous()


def _in_its_order(read: Tensor) -> Tensor:
    return read.permute(2, 0, 1, 3) if _is_by_place(read) else read.transpose(1, 2)


def _conv1d(layer: Any, rows: Tensor) -> Tensor:
    """A transformers Conv1D on rows [rows, in]: its weight is [in, out]."""
    return torch.addmm(layer.bias, rows, layer.weight)


@functools.lru_cache(maxsize=16)
def _masks_by_length(shared: int, own: int, patches: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The patches' masks for each number of own prompt tokens [own + 1, 1, patches, keys and a few more]."""
    return _masks_of(torch.arange(own + 1, device=device), shared, own, patches, dtype)


def _masks_of(lengths: Tensor, shared: int, own: int, patches: int, dtype: torch.dtype) -> Tensor:
    """What is added to the patches' scores: 0 for a row's prompt and earlier patches [rows, 1, patches, keys].

    Keys are filled up to a multiple of eight, because a GPU's kernels copy masks whose rows are not aligned.
    """
    before = shared + own
    causal = causal_mask(before, patches, dtype, lengths.device)
    places = torch.arange(before + patches, device=lengths.device)
    is_padding = (places >= shared + lengths.view(-1, 1, 1, 1)) & (places < before)
    masks = causal.masked_fill(is_padding, float("-inf"))
    return F.pad(masks, (0, -masks.shape[-1] % 8))
