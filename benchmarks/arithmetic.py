"""Arithmetic of a step and the device's matrix product speed: below their quotient no step can go."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from timellm.machine.environment import synchronize
from timellm.model.timellm import DTYPES

CPU_PRODUCTS = ((2304, 768, 3072), (1000, 49152, 768), (2048, 2048, 2048))
GPU_PRODUCTS = ((8192, 8192, 8192), (16384, 768, 3072), (1000, 49152, 768))
"""Rows, inner and columns of the products that are tried: a transformer's, the mapping layer's, a square."""

SECONDS_PER_PRODUCT = 1.0

_ATEN = torch.ops.aten
_MORE_PRODUCTS = {
    _ATEN.addmm_: lambda total, left, right, **options: 2 * left[0] * left[1] * right[1],
    _ATEN._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **options: sdpa_flop_count(*shapes[:3]),
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *shapes, **options: sdpa_backward_flop_count(*shapes[:4])
    ),
}
"""What torch's own counter lacks."""


def flops_of(action: Callable[[], object]) -> int:
    """Floating point operations of the matrix products in an action."""
    with FlopCounterMode(display=False, custom_mapping=_MORE_PRODUCTS) as counter:
        action()
    return counter.get_total_flops()


def peak_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """The fastest matrix product that was measured, operations per second.

    Where one takes more than a second, because the device has no units for the type, no other is tried.
    """
    fastest = 0.0
    for rows, inner, columns in GPU_PRODUCTS if device.type == "cuda" else CPU_PRODUCTS:
        seconds = _product_seconds(device, dtype, rows, inner, columns)
        fastest = max(fastest, 2 * rows * inner * columns / seconds)
        if seconds > SECONDS_PER_PRODUCT:
            break
    return fastest


def faster_precision(device: torch.device) -> str:
    """The precision whose matrix products are faster on the device: without matrix units fp32 may beat bf16."""
    return max(("bf16", "fp32"), key=lambda name: peak_flops_per_second(device, DTYPES[name]))


def _product_seconds(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
    left = torch.randn(rows, inner, device=device, dtype=dtype)
    right = torch.randn(columns, inner, device=device, dtype=dtype).t()  # as linear layers store it
    result = torch.empty(rows, columns, device=device, dtype=dtype)
    torch.mm(left, right, out=result)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS_PER_PRODUCT:
        synchronize(device)
        started = time.perf_counter()
        torch.mm(left, right, out=result)
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best
