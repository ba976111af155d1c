"""Rotary positions with few kernels (Su et al., arXiv 2104.09864, section 3.4), as transformers lays them out.

A head's first half holds the first coordinates of its pairs, and the second half the second ones.
"""

from typing import Any

import torch
from torch import Tensor

STATIC = ("default", "linear", "llama3")
"""Kinds of rotation that do not depend on how many tokens there are."""
MOST_POSITIONS = 16384
"""Positions up to which a table of rotations is held: 8 MB of it for heads of 64 features, fp32."""


class RotationTable:
    """The rotations of all positions, computed once; a step looks them up.

    Args:
        module: The rotary embedding of a transformers model.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._table: Tensor | None = None

    @property
    def suits(self) -> bool:
        """Whether the rotations can be held."""
        return self._module.rope_type in STATIC and self._module.max_seq_len_cached <= MOST_POSITIONS

    def look_up(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine, and sine with the sign of its half [rows, tokens, 1, head_dim], in the type of `like`.

        Args:
            like: Gives type and device.
            positions: Positions of tokens [rows or 1, tokens].
        """
        if self._table is None or (self._table.dtype, self._table.device) != (like.dtype, like.device):
            every = torch.arange(self._module.max_seq_len_cached, device=like.device).unsqueeze(0)
            cosine, sine = self._module(like, every)
            first, second = sine[0].chunk(2, dim=-1)
            self._table = torch.stack((cosine[0], torch.cat((-first, second), dim=-1)), dim=1)
        found = self._table.index_select(0, positions.flatten()).view(*positions.shape, 1, 2, -1)
        return found[..., 0, :], found[..., 1, :]


def rotate(heads: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
    """Rotate heads [rows, tokens, heads, head_dim] by what `RotationTable.look_up` found."""
    return _Rotate.apply(heads, cosine, signed_sine)


class _Rotate(torch.autograd.Function):
    """Three operations each way; the way back is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, signed_sine)
        return _turned(heads, cosine, signed_sine, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cosine, signed_sine = ctx.saved_tensors
        return _turned(grads[0], cosine, signed_sine, -1), None, None


def _turned(heads: Tensor, cosine: Tensor, signed_sine: Tensor, direction: int) -> Tensor:
    other_half = heads.roll(heads.shape[-1] // 2, -1)
    return torch.addcmul(heads * cosine, other_half, signed_sine, value=direction)
