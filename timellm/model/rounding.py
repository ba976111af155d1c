"""Half-precision products on processors that multiply in fp32 faster.

A CPU without units for bf16 takes twice (AVX-512 without AMX) to a hundred times (AVX2) as long for a product of bf16
operands as for one of fp32 operands. The product of two bf16 numbers is exact in fp32, and sums are in fp32 either way:
operands that are rounded to bf16 and held in fp32 give what bf16 operands give, at fp32's speed.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SLOWER = 1.25
"""Time of a product in half precision, relative to fp32, from which on it is computed in fp32."""
_ROWS, _INNER, _COLUMNS = 256, 768, 768
_ROUNDS = 5

_PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    {
        torch.Tensor.__matmul__,
        torch.Tensor.matmul,
        torch.matmul,
        torch.bmm,
        torch.baddbmm,
        F.linear,
        F.conv1d,
        F.scaled_dot_product_attention,
    }
)
"""What `RoundedProducts` rounds the operands of, as autocast would cast them."""


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest values that a type can hold, in the type of x; gradients are rounded on their way back too."""
    return x.to(dtype).to(x.dtype)


@torch.no_grad()
def round_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Give every parameter the nearest values that a type can hold, where it lies."""
    for parameter in module.parameters():
        parameter.copy_(parameter.to(dtype))


class RoundedProducts(TorchFunctionMode):
    """As autocast, but products of rounded operands are computed, and returned, in the operands' own type.

    Args:
        dtype: Type whose values the operands take.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Round the operands of a product; leave every other function alone."""
        if func in _PRODUCTS:
            args = tuple(rounded(each, self._dtype) if isinstance(each, Tensor) else each for each in args)
        return func(*args, **(kwargs or {}))


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Type to compute products in whose operands are of a type: fp32 where a CPU takes longer for the type itself."""
    return dtype if device.type != "cpu" or dtype == torch.float32 or pays(dtype) else torch.float32


def pays(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies in a type about as fast as in fp32, or faster.

    Where it does not, exact reuse computes the type's products in fp32, and a search for speed leaves the type out.
    """
    return slowdown(dtype) < SLOWER


@functools.cache
def slowdown(dtype: torch.dtype) -> float:
    """Time of a matrix product in a type on this CPU, relative to fp32; measured once in a process, in about 30 ms."""
    plain, other = [], []
    for _ in range(_ROUNDS):
        plain.append(seconds_of_product(torch.float32))
        other.append(seconds_of_product(dtype))
        if len(plain) > 1 and min(other) > 10 * min(plain):
            break
    return min(other) / min(plain)


def gflop_per_second() -> float:
    """Operations per second of a product in fp32 on this CPU, in 1e9: the best of a few."""
    best = min(seconds_of_product(torch.float32) for _ in range(_ROUNDS))
    return 2 * _ROWS * _INNER * _COLUMNS / best / 1e9


def seconds_of_product(dtype: torch.dtype) -> float:
    """Seconds of one product of matrices in a type."""
    left, right = torch.ones(_ROWS, _INNER, dtype=dtype), torch.ones(_INNER, _COLUMNS, dtype=dtype)
    started = time.perf_counter()
    left @ right
    return time.perf_counter() - started
