"""Copies of trained weights in the type of the products that read them, all made at once.

Autocast copies each weight by itself, and each gradient back: two launches for every weight. Here all of them are one
operation each way.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def joined_copies(groups: Sequence[Sequence[Tensor]], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Copy weights to another type, with autograd.

    Args:
        groups: Weights; those of a group differ in their first dimension only.
        dtype: Type of the copies.

    Returns:
        For each group its weights in one tensor, one after the other.
    """
    return _JoinedCopies.apply(dtype, [len(group) for group in groups], *(one for group in groups for one in group))


class _JoinedCopies(torch.autograd.Function):
    """Gradients go back in the types of the weights."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, sizes: list[int], *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.sizes, ctx.rows, ctx.types = sizes, [len(one) for one in weights], [one.dtype for one in weights]
        ctx.set_materialize_grads(False)
        copies, parts, at = [], [], 0
        for size in sizes:
            rows = ctx.rows[at : at + size]
            copies.append(weights[at].new_empty((sum(rows), *weights[at].shape[1:]), dtype=dtype))
            parts += copies[-1].split(rows)
            at += size
        torch._foreach_copy_(parts, weights)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        found: list[Tensor | None] = []
        for size, grad in zip(ctx.sizes, grads, strict=True):
            rows = ctx.rows[len(found) : len(found) + size]
            found += [None] * size if grad is None else grad.split(rows)
        told = [number for number, part in enumerate(found) if part is not None]
        parts = [part for part in found if part is not None]
        back = [torch.empty_like(part, dtype=ctx.types[number]) for number, part in zip(told, parts, strict=True)]
        if back:
            torch._foreach_copy_(back, parts)
        for number, part in zip(told, back, strict=True):
            found[number] = part
        return None, None, *found
