"""The mapping layer: a trained [prototypes, vocabulary] matrix over the frozen word embeddings."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from timellm.model import devices
from timellm.model.rounding import rounded

ROWS_AT_ONCE = 128
"""Rows of the weight that are rounded at once: 25 MB of it for 50,000 words."""

MULTIPLE = 64
"""What the inner size of the product over the vocabulary is a multiple of on a GPU."""


@dataclass
class _Spare:
    """Memory that no tensor needs any more.

    Attributes:
        tensor: Of the weight's shape and type; None if there is none.
    """

    tensor: Tensor | None = None


class _MapVocabulary(torch.autograd.Function):
    """prototypes = weight @ embeddings + bias, in the compute type, with the gradient of the weight in fp32."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor,
        embeddings: Tensor,
        dtype: torch.dtype,
        spare: _Spare | None,
        cast_bias: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(embeddings)
        ctx.grad_dtype, ctx.compute_dtype, ctx.spare = weight.dtype, dtype, spare
        held = embeddings.dtype
        if devices.launches_kernels(weight.device) and dtype == held:
            rows, words = filled_operands(weight, embeddings)
            added = bias.to(held) if cast_bias is None else cast_bias
            return torch.addmm(added, words.t(), rows.t()).t()
        operand = weight.to(dtype) if dtype == held else _rounded(weight, dtype, spare)
        product = torch.mm(operand, embeddings)  # `@` would be rounded by RoundedProducts once more
        return product + bias.to(dtype).to(held).unsqueeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        (grad,) = grads
        (embeddings,) = ctx.saved_tensors
        bias_grad = grad.sum(dim=1, dtype=torch.float32)
        operand = grad.to(ctx.compute_dtype).to(embeddings.dtype)
        return _weight_gradient(operand, embeddings, ctx.grad_dtype, ctx.spare), bias_grad, None, None, None, None


def filled_operands(weight: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The operands of the product over the vocabulary, in the embeddings' type, filled up with zeros.

    A GPU's kernels for half precision take operands whose inner size is a multiple of eight; 50,257 is not. The copy of
    the weight is made anyway; the embeddings have room after them where `with_room` has given it.
    """
    vocabulary, hidden = embeddings.shape
    filled = -(-vocabulary // MULTIPLE) * MULTIPLE
    has_room = embeddings.untyped_storage().nbytes() >= filled * hidden * embeddings.element_size()
    if weight.dtype == embeddings.dtype or filled == vocabulary or not has_room or not embeddings.is_contiguous():
        return weight.to(embeddings.dtype), embeddings
    rows = torch.empty(len(weight), filled, dtype=embeddings.dtype, device=weight.device)
    rows[:, :vocabulary].copy_(weight)
    rows[:, vocabulary:].zero_()
    return rows, embeddings.as_strided((filled, hidden), (hidden, 1))


def with_room(embeddings: Tensor) -> Tensor:
    """The same embeddings [vocabulary, hidden], with zeros after them in memory up to a multiple of `MULTIPLE`."""
    vocabulary, hidden = embeddings.shape
    whole = embeddings.new_zeros(-(-vocabulary // MULTIPLE) * MULTIPLE, hidden)
    whole[:vocabulary].copy_(embeddings)
    return whole[:vocabulary]


def _rounded(weight: Tensor, dtype: torch.dtype, spare: _Spare | None) -> Tensor:
    """The weight's nearest values that a type can hold, in its own type.

    They lie in spare memory, and where there is none yet, their memory becomes it: a step needs it for the gradient
    anyway, and by then nobody reads them any more.
    """
    if spare is None or weight.device.type != "cpu":
        return rounded(weight, dtype)
    memory = torch.empty_like(weight) if spare.tensor is None else spare.tensor
    for target, rows in zip(memory.split(ROWS_AT_ONCE), weight.split(ROWS_AT_ONCE), strict=True):
        target.copy_(rows.to(dtype))
    spare.tensor = memory
    return memory


def _weight_gradient(grad: Tensor, embeddings: Tensor, dtype: torch.dtype, spare: _Spare | None) -> Tensor:
    """The product grad @ embeddings.t() in a type, in spare memory if there is some."""
    if spare is None or spare.tensor is None:
        return devices.product_in_fp32(grad, embeddings.t()).to(dtype)
    memory, spare.tensor = spare.tensor, None
    if grad.dtype == dtype:
        return torch.mm(grad, embeddings.t(), out=memory)
    return memory.copy_(grad @ embeddings.t())


class MappingLayer(nn.Linear):
    """Vocabulary to prototypes; its state-dict names are those of the published linear layer."""

    def __init__(self, vocabulary: int, prototypes: int) -> None:
        super().__init__(vocabulary, prototypes)
        self.spare = _Spare()

    def prototypes(
        self, embeddings: Tensor, compute_dtype: torch.dtype | None = None, cast_bias: Tensor | None = None
    ) -> Tensor:
        """Text prototypes of the frozen embeddings.

        Args:
            embeddings: Word embeddings [vocabulary, hidden]; the product is computed in their type.
            compute_dtype: What its operands are rounded to; None for the embeddings' type.
            cast_bias: A copy of the bias in that type, if there is one; its gradient is the bias's own.

        Returns:
            Prototypes [prototypes, hidden], in the embeddings' type.
        """
        spare = None if torch.compiler.is_compiling() else self.spare
        dtype = compute_dtype or embeddings.dtype
        copied = None if cast_bias is None else cast_bias.detach()
        return _MapVocabulary.apply(self.weight, self.bias, embeddings, dtype, spare, copied)

    def drop_gradient(self) -> None:
        """Drop the weight's gradient and keep its memory for the next one.

        It is the largest tensor of a step, 200 MB for 50,000 words: on a CPU, to take it anew costs as many page faults
        as the product that fills it costs time, whenever the allocator has given the old place to smaller tensors.
        """
        gradient, self.weight.grad = self.weight.grad, None
        if gradient is not None and not devices.launches_kernels(gradient.device) and gradient.is_contiguous():
            self.spare.tensor = gradient
